from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Table, bindparam, delete, insert, select, update

from app.models import Category
from app.repositories.versions import Versions, of_versions, only
from plinth.database import Change, Keyset, KeysetPage, Query, Reads, Transaction


class CategoryRow(NamedTuple):
    id: int
    name: str
    description: str
    version: int
    created_at: datetime
    updated_at: datetime


COLUMNS = [getattr(Category, name) for name in CategoryRow._fields]
BY_ID = Query(CategoryRow, select(*COLUMNS).where(Category.id == bindparam("id")))
PAGES = Keyset(
    "categories",
    CategoryRow,
    select(*COLUMNS),
    sorts={"id": Category.id, "name": Category.name, "created_at": Category.created_at},
    filters={},
)


class CategoryReads:
    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def get(self, id: int) -> CategoryRow | None:
        return await self._reads.first(BY_ID, id=id)

    async def page(self, **query: Any) -> KeysetPage[CategoryRow]:
        return await PAGES.page(self._reads, **query)


class CategoryRepository:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def create(self, **values: Any) -> CategoryRow:
        [row] = await self._transaction.all(_insert(frozenset(values)), **values)
        return row

    async def update(self, id: int, versions: Versions, /, **values: Any) -> CategoryRow | None:
        change = _update(frozenset(values), versions is None)
        return await self._transaction.first(change, **of_versions(id, versions), **values)

    async def delete(self, id: int, versions: Versions) -> bool:
        change = _delete(versions is None)
        return await self._transaction.first(change, **of_versions(id, versions)) is not None

    async def exists(self, id: int) -> bool:
        return await self._transaction.first(EXISTS, row_id=id) is not None


TABLE = cast(Table, Category.__table__)
WRITTEN = [TABLE.c[name] for name in CategoryRow._fields]
EXISTS = Query(int, select(Category.id).where(Category.id == bindparam("row_id")))


@cache
def _delete(any_version: bool) -> Change[int]:
    return Change(int, delete(TABLE).where(*only(TABLE, any_version)).returning(TABLE.c.id))


@cache
def _insert(names: frozenset[str]) -> Change[CategoryRow]:
    return Change(CategoryRow, insert(TABLE).values({name: bindparam(name) for name in names}).returning(*WRITTEN))


@cache
def _update(names: frozenset[str], any_version: bool) -> Change[CategoryRow]:
    changes = update(TABLE).values({name: bindparam(name) for name in names})
    return Change(CategoryRow, changes.where(*only(TABLE, any_version)).returning(*WRITTEN))
