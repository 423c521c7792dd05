from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Insert,
    Table,
    Update,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from app.models import Category, Product
from app.repositories.versions import Versions, of_versions, only
from plinth.database import Change, Keyset, KeysetPage, Query, Reads, Transaction


class ProductRow(NamedTuple):
    """A product with its category, as one statement brings both."""

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
    """Only of one that is read or written alone: lists are faster without it."""


def _columns(product: Any, category: Any, alone: bool = True) -> list[Any]:
    columns = {
        "category_id": category.id,
        "category_name": category.name,
        "category_updated_at": category.updated_at,
    }
    names = ProductRow._fields if alone else ProductRow._fields[:-1]
    return [columns[name].label(name) if name in columns else getattr(product, name) for name in names]


PRODUCTS = select(*_columns(Product, Category, alone=False)).join(Product.category)
BY_ID = Query(
    ProductRow, select(*_columns(Product, Category)).join(Product.category).where(Product.id == bindparam("id"))
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
# The beginning of a word may look like a stop word ("the" of "thermal"), which only `simple` keeps.
LAST = func.to_tsquery(ENGLISH, bindparam("last")).op("||")(func.to_tsquery(SIMPLE, bindparam("last")))
WORDS = func.to_tsquery(ENGLISH, bindparam("words")).op("&&")(LAST)
SEARCH = Query(
    ProductRow,
    PRODUCTS.where(Product.search.bool_op("@@")(WORDS))
    .order_by(func.ts_rank(Product.search, WORDS).desc(), Product.id)
    .limit(bindparam("limit")),
)


class ProductReads:
    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def get(self, id: int) -> ProductRow | None:
        return await self._reads.first(BY_ID, id=id)

    async def page(self, **query: Any) -> KeysetPage[ProductRow]:
        return await PAGES.page(self._reads, **query)

    async def search(self, words: Sequence[str], limit: int) -> list[ProductRow]:
        """Products that hold every word, best match first; the last word may be the beginning of one."""
        *quoted, last = ("'" + word.replace("\\", "\\\\").replace("'", "''") + "'" for word in words)
        return await self._reads.all(SEARCH, words=" & ".join(quoted), last=f"{last}:*", limit=limit)


class ProductRepository:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def create(self, **values: Any) -> ProductRow:
        [row] = await self._transaction.all(_insert(frozenset(values)), **values)
        return row

    async def update(self, id: int, versions: Versions, /, **values: Any) -> ProductRow | None:
        change = _update(frozenset(values), versions is None)
        return await self._transaction.first(change, **of_versions(id, versions), **values)

    async def delete(self, id: int, versions: Versions) -> bool:
        change = _delete(versions is None)
        return await self._transaction.first(change, **of_versions(id, versions)) is not None

    async def exists(self, id: int) -> bool:
        return await self._transaction.first(EXISTS, row_id=id) is not None


# To build a statement takes many times longer than to run it: each is built once.
TABLE, CATEGORIES = cast(Table, Product.__table__), cast(Table, Category.__table__)
EXISTS = Query(int, select(Product.id).where(Product.id == bindparam("row_id")))


@cache
def _delete(any_version: bool) -> Change[int]:
    return Change(int, delete(TABLE).where(*only(TABLE, any_version)).returning(TABLE.c.id))


@cache
def _insert(names: frozenset[str]) -> Change[ProductRow]:
    return _with_category(insert(TABLE).values({name: bindparam(name) for name in names}))


@cache
def _update(names: frozenset[str], any_version: bool) -> Change[ProductRow]:
    changes = update(TABLE).values({name: bindparam(name) for name in names})
    return _with_category(changes.where(*only(TABLE, any_version)))


def _with_category(write: Insert | Update) -> Change[ProductRow]:
    """Write and read back in one round trip."""
    written = write.returning(*TABLE.c).cte("written")
    columns = select(*_columns(written.c, CATEGORIES.c))
    return Change(ProductRow, columns.join_from(written, CATEGORIES, CATEGORIES.c.id == written.c.category_id))
