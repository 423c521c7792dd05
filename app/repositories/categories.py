from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select

from app.models import Category
from plinth.database import Keyset, KeysetPage, Query, Readable, Session


class CategoryRow(NamedTuple):
    id: int
    name: str
    description: str
    version: int
    created_at: datetime
    updated_at: datetime


CATEGORIES = select(*(getattr(Category, name) for name in CategoryRow._fields))
BY_ID = Query(CategoryRow, CATEGORIES.where(Category.id == bindparam("id")))
PAGES = Keyset(
    "categories",
    CategoryRow,
    CATEGORIES,
    sorts={"id": Category.id, "name": Category.name, "created_at": Category.created_at},
    filters={"name": Category.name == bindparam("name")},
)
INSERT = insert(Category).returning(Category.id)


class CategoryQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def get(self, id: int) -> CategoryRow | None:
        return await self.db.first(BY_ID, id=id)

    async def page(self, **query: Any) -> KeysetPage[CategoryRow]:
        return await PAGES.page(self.db, **query)


class CategoryRepository(CategoryQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def find(self, id: int) -> Category | None:
        """The entity, locked until the end of the transaction."""
        return await self.session.get(Category, id, with_for_update=True)

    async def add(self, **values: Any) -> int:
        """Return the id. On the connection, since the session would load an entity, which costs as much again."""
        connection = await self.session.connection()
        return (await connection.execute(INSERT, values)).scalar_one()

    async def delete(self, category: Category) -> None:
        await self.session.delete(category)
        await self.session.flush()

    async def flush(self) -> None:
        await self.session.flush()
