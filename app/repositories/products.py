from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Numeric,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.models import Category, Product
from plinth.database import Export, Keyset, KeysetPage, Query, Readable, Session


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
    passage: str = ""
    """Of a search: the passage that matches, with START and END around each match."""


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


def _instant(column: InstrumentedAttribute[datetime]) -> ColumnElement[str]:
    """As Pydantic writes it: without the fraction where that is zero."""
    text = func.to_char(func.timezone("UTC", column), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    return func.replace(text, ".000000Z", "Z").label(column.key)


def _exported(*category: Any) -> Select[*tuple[Any, ...]]:
    """The text of every value is made by PostgreSQL; `ProductRead` has the same fields."""
    price = cast(type_coerce(Product.price, Numeric) * literal_column("0.01"), Text).label("price")
    values = Product.id, Product.sku, Product.name, Product.description, price, Product.stock
    instants = _instant(Product.created_at), _instant(Product.updated_at)
    return select(*values, *category, Product.version, *instants).join(Product.category)


OBJECTS = _exported(func.json_build_object("id", Category.id, "name", Category.name).label("category"))
TABLE = _exported(Product.category_id, Category.name.label("category_name"))

START, END = "\x02", "\x03"
ENGLISH: ColumnElement[str] = literal_column("'english'")
SIMPLE: ColumnElement[str] = literal_column("'simple'")
# The prefix of a word may be a stop word ("the" of "thermal"), which only the configuration `simple` keeps.
STEM, PREFIX = func.to_tsquery(ENGLISH, bindparam("last")), func.to_tsquery(SIMPLE, bindparam("last"))
# Where both are the same, PostgreSQL would count its matches twice, and plan for twice as many.
LAST = case((cast(STEM, Text) == cast(PREFIX, Text), PREFIX), else_=STEM.op("||")(PREFIX))
WORDS = func.to_tsquery(ENGLISH, bindparam("words")).op("&&")(LAST)
# One letter is the beginning of a word in almost every product. No more than this many are ranked.
MOST_RANKED = 500
MATCHES = select(Product.__table__).where(Product.search.bool_op("@@")(WORDS)).limit(MOST_RANKED)
FOUND = aliased(Product, MATCHES.subquery())
# Of the rows that are returned only, since PostgreSQL evaluates an expensive function after the LIMIT.
SHOWN = func.translate(FOUND.name + literal(" · ") + FOUND.description, START + END, "")
PASSAGE = func.ts_headline(ENGLISH, SHOWN, WORDS, f"StartSel={START}, StopSel={END}, MaxWords=40")
SEARCH = Query(
    ProductRow,
    rows_of(FOUND)
    .add_columns(Category.updated_at.label("category_updated_at"), PASSAGE.label("passage"))
    .order_by(func.ts_rank(FOUND.search, WORDS).desc(), FOUND.id)
    .limit(bindparam("limit")),
    custom_plan=True,
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


class ProductExports:
    def __init__(self, export: Export) -> None:
        self.export = export

    async def start(self, format: Literal["ndjson", "json", "csv"], **query: Any) -> AsyncIterator[bytes]:
        statement, parameters = PAGES.narrowed(TABLE if format == "csv" else OBJECTS, **query)
        return await self.export.start(statement, format, parameters)


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
