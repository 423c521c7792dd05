from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Enum, ForeignKey, Identity, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.enums import OrderStatus
from app.models.base import Base, Entity
from app.models.products import Product
from plinth.database import Money

STATUS = Enum(OrderStatus, name="order_status", values_callable=lambda kind: [each.value for each in kind])


class Order(Entity):
    __tablename__ = "orders"

    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """Whose it is; None once the account was deleted, for what was sold stays in the books."""
    status: Mapped[OrderStatus] = mapped_column(STATUS)
    total: Mapped[Decimal] = mapped_column(Money)

    lines: Mapped[list["OrderLine"]] = relationship(lazy="raise", order_by="OrderLine.product_id")

    # The lists: of a user, and of those that wait to be shipped.
    __table_args__ = (Index(None, "user_id", "id"), Index(None, "status", "id"))


class OrderLine(Base):
    """What was sold, at which price: later changes of the product do not change it."""

    __tablename__ = "order_lines"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True)
    product_id: Mapped[int] = mapped_column(
        ForeignKey("products.id", ondelete="RESTRICT"), primary_key=True, index=True
    )
    sku: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    price: Mapped[Decimal] = mapped_column(Money)
    quantity: Mapped[int]

    product: Mapped[Product] = relationship(lazy="raise")

    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"),)


class OrderEvent(Base):
    """A state that an order has got into. What follows an id can be read again, for as long as it is kept."""

    __tablename__ = "order_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[int] = mapped_column(BigInteger)
    """Who may read it. It refers to nothing, since a lock on the account would meet that of its deletion."""
    status: Mapped[OrderStatus] = mapped_column(STATUS)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (Index(None, "user_id", "id"),)
