from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Table, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert, ReturningUpdate

from app.database import Keyset, KeysetPage, Query, Reads
from app.models import Category
from app.repositories.versions import Versions, of_versions, only


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

    async def update(self, id: int, versions: Versions, /, **values: Any) -> CategoryRow | None:
        statement, only = _update(frozenset(values), versions is None), of_versions(id, versions)
        row = (await self._session.execute(statement, {**only, **values})).first()
        return CategoryRow(*row) if row else None

    async def delete(self, id: int, versions: Versions) -> bool:
        result = await self._session.execute(_delete(versions is None), of_versions(id, versions))
        return result.first() is not None

    async def exists(self, id: int) -> bool:
        return (await self._session.execute(EXISTS, {"row_id": id})).first() is not None


TABLE = cast(Table, Category.__table__)
WRITTEN = [TABLE.c[name] for name in CategoryRow._fields]
EXISTS = select(TABLE.c.id).where(TABLE.c.id == bindparam("row_id"))


@cache
def _delete(any_version: bool) -> ReturningDelete[Any]:
    return delete(TABLE).where(*only(TABLE, any_version)).returning(TABLE.c.id)


@cache
def _insert(names: frozenset[str]) -> ReturningInsert[Any]:
    return insert(TABLE).values({name: bindparam(name) for name in names}).returning(*WRITTEN)


@cache
def _update(names: frozenset[str], any_version: bool) -> ReturningUpdate[Any]:
    changes = update(TABLE).values({name: bindparam(name) for name in names})
    return changes.where(*only(TABLE, any_version)).returning(*WRITTEN)
