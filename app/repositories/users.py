from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from app.enums import Role
from app.models import User
from plinth.database import Keyset, KeysetPage, Query, Readable, Session
from plinth.security import set_actor


class UserRow(NamedTuple):
    id: int
    email: str
    name: str
    role: Role
    is_active: bool
    verified_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class CredentialsRow(NamedTuple):
    id: int
    email: str
    name: str
    password_hash: str
    is_active: bool


class StateRow(NamedTuple):
    """What may change while a credential of a user is valid."""

    role: Role
    is_active: bool


USERS = select(*(getattr(User, name) for name in UserRow._fields))
CREDENTIALS = select(*(getattr(User, name) for name in CredentialsRow._fields))
BY_ID = Query(UserRow, USERS.where(User.id == bindparam("id")))
CREDENTIALS_BY_EMAIL = Query(CredentialsRow, CREDENTIALS.where(User.email == bindparam("email")))
CREDENTIALS_BY_ID = Query(CredentialsRow, CREDENTIALS.where(User.id == bindparam("id")))
STATE = Query(StateRow, select(User.role, User.is_active).where(User.id == bindparam("id")))
PAGES = Keyset(
    "users",
    UserRow,
    USERS,
    sorts={"id": User.id, "email": User.email, "created_at": User.created_at},
    filters={"email": User.email == bindparam("email"), "role": User.role == bindparam("role")},
)
INSERT = insert(User).on_conflict_do_nothing(index_elements=[User.email]).returning(User.id)


class UserQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def get(self, id: int) -> UserRow | None:
        return await self.db.first(BY_ID, id=id)

    async def page(self, **query: Any) -> KeysetPage[UserRow]:
        return await PAGES.page(self.db, **query)

    async def credentials(self, email: str) -> CredentialsRow | None:
        return await self.db.first(CREDENTIALS_BY_EMAIL, email=email)

    async def credentials_of(self, id: int) -> CredentialsRow | None:
        return await self.db.first(CREDENTIALS_BY_ID, id=id)

    async def state(self, id: int) -> StateRow | None:
        return await self.db.first(STATE, id=id)


class UserRepository(UserQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def find(self, id: int) -> User | None:
        """The entity, locked until the end of the transaction."""
        return await self.session.get(User, id, with_for_update=True)

    async def add(self, **values: Any) -> int | None:
        """Return the id, or None for an address that is taken."""
        connection = await self.session.connection()
        return (await connection.execute(INSERT, values)).scalar_one_or_none()

    async def record_actor(self, name: str) -> None:
        """The changes that follow are this principal's, in the audit trail."""
        await set_actor(self.session, name)

    async def delete(self, user: User) -> None:
        await self.session.delete(user)
        await self.session.flush()

    async def flush(self) -> None:
        await self.session.flush()
