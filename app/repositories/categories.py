from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

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
        row = (await self._session.execute(insert(Category).values(**values).returning(*COLUMNS))).one()
        return CategoryRow(*row)

    async def update(self, id: int, **values: Any) -> CategoryRow | None:
        statement = update(Category).where(Category.id == id).values(**values).returning(*COLUMNS)
        row = (await self._session.execute(statement)).first()
        return CategoryRow(*row) if row else None

    async def delete(self, id: int) -> bool:
        statement = delete(Category).where(Category.id == id).returning(Category.id)
        return (await self._session.execute(statement)).first() is not None
