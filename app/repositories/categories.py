from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Table, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from app.database import Keyset, KeysetPage, Query, Reads
from app.models import Category


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
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def create(self, **values: Any) -> CategoryRow:
        return CategoryRow(*(await self._session.execute(_insert(frozenset(values)), values)).one())

    async def update(self, id: int, **values: Any) -> CategoryRow | None:
        row = (await self._session.execute(_update(frozenset(values)), {"category_id": id, **values})).first()
        return CategoryRow(*row) if row else None

    async def delete(self, id: int) -> bool:
        return (await self._session.execute(DELETE, {"category_id": id})).first() is not None


TABLE = cast(Table, Category.__table__)
WRITTEN = [TABLE.c[name] for name in CategoryRow._fields]
DELETE = delete(TABLE).where(TABLE.c.id == bindparam("category_id")).returning(TABLE.c.id)


@cache
def _insert(names: frozenset[str]) -> ReturningInsert[Any]:
    return insert(TABLE).values({name: bindparam(name) for name in names}).returning(*WRITTEN)


@cache
def _update(names: frozenset[str]) -> ReturningUpdate[Any]:
    changes = update(TABLE).values({name: bindparam(name) for name in names})
    return changes.where(TABLE.c.id == bindparam("category_id")).returning(*WRITTEN)
