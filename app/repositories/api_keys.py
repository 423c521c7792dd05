from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, insert, select

from app.models import ApiKey
from plinth.database import Query, Readable, Session


class ApiKeyRow(NamedTuple):
    id: int
    name: str
    hint: str
    scopes: list[str]
    expires_at: datetime | None
    created_at: datetime


class KeyStateRow(NamedTuple):
    """What an API key is used with."""

    id: int
    user_id: int
    scopes: list[str]
    expires_at: datetime | None


API_KEYS = select(*(getattr(ApiKey, name) for name in ApiKeyRow._fields))
OF_USER = Query(ApiKeyRow, API_KEYS.where(ApiKey.user_id == bindparam("user_id")).order_by(ApiKey.id))
BY_HASH = Query(
    KeyStateRow,
    select(*(getattr(ApiKey, name) for name in KeyStateRow._fields)).where(ApiKey.hash == bindparam("hash")),
)
COUNT = Query(int, select(func.count()).select_from(ApiKey).where(ApiKey.user_id == bindparam("user_id")))
INSERT = insert(ApiKey).returning(ApiKey.id, ApiKey.created_at)


class ApiKeyQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def all_of(self, user_id: int) -> list[ApiKeyRow]:
        return await self.db.all(OF_USER, user_id=user_id)

    async def state(self, hash: bytes) -> KeyStateRow | None:
        return await self.db.first(BY_HASH, hash=hash)


class ApiKeyRepository(ApiKeyQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def count(self, user_id: int) -> int:
        return await self.session.first(COUNT, user_id=user_id) or 0

    async def find(self, id: int, user_id: int) -> ApiKey | None:
        """The entity, locked until the end of the transaction, if it is of this user."""
        statement = select(ApiKey).where(ApiKey.id == id, ApiKey.user_id == user_id).with_for_update()
        return await self.session.scalar(statement)

    async def add(self, **values: Any) -> tuple[int, datetime]:
        """Return the id and when it was created."""
        connection = await self.session.connection()
        row = (await connection.execute(INSERT, values)).one()
        return row.id, row.created_at

    async def delete(self, key: ApiKey) -> None:
        await self.session.delete(key)
        await self.session.flush()
