from decimal import Decimal

from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, String, Text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Entity
from app.models.categories import Category
from plinth.database import Money

# The text that is searched: a word in the name or the sku outranks one in the description.
SEARCH_DOCUMENT = (
    "setweight(to_tsvector('english', name), 'A')"
    " || setweight(to_tsvector('simple', sku), 'A')"
    " || setweight(to_tsvector('english', description), 'B')"
)


class Product(Entity):
    __tablename__ = "products"

    sku: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, server_default="")
    price: Mapped[Decimal] = mapped_column(Money)
    stock: Mapped[int]
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id", ondelete="RESTRICT"))
    search: Mapped[str] = mapped_column(TSVECTOR, Computed(SEARCH_DOCUMENT, persisted=True), deferred=True)

    category: Mapped[Category] = relationship(lazy="raise")

    __table_args__ = (
        CheckConstraint("price >= 0", name="price_not_negative"),
        CheckConstraint("stock >= 0", name="stock_not_negative"),
        Index(None, "search", postgresql_using="gin"),
        # One index for each sort and for the category filter. The id breaks ties.
        Index(None, "name", "id"),
        Index(None, "price", "id"),
        Index(None, "created_at", "id"),
        Index(None, "category_id", "id"),
    )
