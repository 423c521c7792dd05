from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, func, insert, literal_column, select
from sqlalchemy.orm import aliased

from app.models import Category, Product
from plinth.database import Keyset, KeysetPage, Query, Readable, Session


class ProductRow(NamedTuple):
    """A product with its category, which one statement reads."""

    id: int
    sku: str
    name: str
    description: str
    price: Decimal
    stock: int
    category_id: int
    category_name: str
    version: int
    created_at: datetime
    updated_at: datetime
    category_updated_at: datetime | None = None
    """Not in lists, which are faster without it."""


class FacetRow(NamedTuple):
    id: int
    name: str
    products: int
    min_price: Decimal | None
    max_price: Decimal | None


def rows_of(product: type[Product]) -> Select[*tuple[Any, ...]]:
    """Select rows from the table, or from some of it."""
    return select(
        product.id,
        product.sku,
        product.name,
        product.description,
        product.price,
        product.stock,
        product.category_id,
        Category.name.label("category_name"),
        product.version,
        product.created_at,
        product.updated_at,
    ).join(product.category)


PRODUCTS = rows_of(Product)
BY_ID = Query(
    ProductRow,
    PRODUCTS.add_columns(Category.updated_at.label("category_updated_at")).where(Product.id == bindparam("id")),
)
PAGES = Keyset(
    "products",
    ProductRow,
    PRODUCTS,
    sorts={"id": Product.id, "name": Product.name, "price": Product.price, "created_at": Product.created_at},
    filters={
        "category": Product.category_id == bindparam("category"),
        "min_price": Product.price >= bindparam("min_price"),
        "max_price": Product.price <= bindparam("max_price"),
        "in_stock": (Product.stock > 0) == bindparam("in_stock"),
    },
)
ENGLISH: ColumnElement[str] = literal_column("'english'")
SIMPLE: ColumnElement[str] = literal_column("'simple'")
# The prefix of a word may be a stop word ("the" of "thermal"), which only the configuration `simple` keeps.
LAST = func.to_tsquery(ENGLISH, bindparam("last")).op("||")(func.to_tsquery(SIMPLE, bindparam("last")))
WORDS = func.to_tsquery(ENGLISH, bindparam("words")).op("&&")(LAST)
# One letter is the beginning of a word in almost every product. No more than this many are ranked.
MOST_RANKED = 2000
MATCHES = select(Product.__table__).where(Product.search.bool_op("@@")(WORDS)).limit(MOST_RANKED)
FOUND = aliased(Product, MATCHES.subquery())
SEARCH = Query(
    ProductRow,
    rows_of(FOUND).order_by(func.ts_rank(FOUND.search, WORDS).desc(), FOUND.id).limit(bindparam("limit")),
)
FACETS = Query(
    FacetRow,
    select(
        Category.id,
        Category.name,
        func.count(Product.id).label("products"),
        func.min(Product.price).label("min_price"),
        func.max(Product.price).label("max_price"),
    )
    .outerjoin(Product, Product.category_id == Category.id)
    .group_by(Category.id)
    .order_by(Category.name),
)
INSERT = insert(Product).returning(Product.id)


class ProductQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def get(self, id: int) -> ProductRow | None:
        return await self.db.first(BY_ID, id=id)

    async def page(self, **query: Any) -> KeysetPage[ProductRow]:
        return await PAGES.page(self.db, **query)

    async def search(self, words: Sequence[str], limit: int) -> list[ProductRow]:
        """Products that contain every word, best match first; the last word may be a prefix."""
        *quoted, last = ("'" + word.replace("\\", "\\\\").replace("'", "''") + "'" for word in words)
        return await self.db.all(SEARCH, words=" & ".join(quoted), last=f"{last}:*", limit=limit)

    async def facets(self) -> list[FacetRow]:
        return await self.db.all(FACETS)


class ProductRepository(ProductQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def find(self, id: int) -> Product | None:
        """The entity, locked until the end of the transaction."""
        return await self.session.get(Product, id, with_for_update=True)

    async def add(self, **values: Any) -> int:
        """Return the id. On the connection, since the session would load an entity, which costs as much again."""
        connection = await self.session.connection()
        return (await connection.execute(INSERT, values)).scalar_one()

    async def delete(self, product: Product) -> None:
        await self.session.delete(product)
        await self.session.flush()

    async def flush(self) -> None:
        await self.session.flush()
