from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import bindparam, delete, func, insert, literal, select, update

from app.enums import Role
from app.models import Login, MailToken, RefreshToken, User
from plinth.database import Query, Readable, Session

MOST_LISTED = 100


class LoginRow(NamedTuple):
    """A session with the state of its user: what an access token depends on."""

    id: UUID
    user_id: int
    role: Role
    is_active: bool
    expires_at: datetime


class DeviceRow(NamedTuple):
    id: UUID
    user_agent: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime


LOGINS = select(Login.id, Login.user_id, User.role, User.is_active, Login.expires_at).join(
    User, User.id == Login.user_id
)
BY_ID = Query(LoginRow, LOGINS.where(Login.id == bindparam("id")))
BY_REFRESH_TOKEN = (
    LOGINS.join(RefreshToken, RefreshToken.login_id == Login.id)
    .where(RefreshToken.hash == bindparam("hash"), Login.expires_at > func.now(), User.is_active)
    .with_for_update(of=Login)
)
OF_USER = Query(
    DeviceRow,
    select(*(getattr(Login, name) for name in DeviceRow._fields))
    .where(Login.user_id == bindparam("user_id"), Login.expires_at > func.now())
    .order_by(Login.used_at.desc(), Login.id)
    .limit(MOST_LISTED),
)
MAIL_TOKEN = Query(
    int,
    select(MailToken.user_id).where(
        MailToken.hash == bindparam("hash"),
        MailToken.purpose == bindparam("purpose"),
        MailToken.expires_at > func.now(),
    ),
)


class AuthQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def login(self, id: UUID) -> LoginRow | None:
        return await self.db.first(BY_ID, id=id)

    async def devices(self, user_id: int) -> list[DeviceRow]:
        """The sessions of a user, that which was used last first."""
        return await self.db.all(OF_USER, user_id=user_id)

    async def user_of(self, hash: bytes, purpose: str) -> int | None:
        """The id of the user that a link was mailed to, while it is valid."""
        return await self.db.first(MAIL_TOKEN, hash=hash, purpose=purpose)


class AuthRepository(AuthQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def add_login(self, id: UUID, user_id: int, user_agent: str, lifetime: timedelta) -> None:
        values = {"id": id, "user_id": user_id, "user_agent": user_agent, "expires_at": func.now() + literal(lifetime)}
        await self.session.execute(insert(Login).values(**values))

    async def add_refresh_token(self, hash: bytes, login_id: UUID) -> None:
        await self.session.execute(insert(RefreshToken).values(hash=hash, login_id=login_id))

    async def lock_login(self, hash: bytes) -> LoginRow | None:
        """The valid session of a refresh token, locked: its exchanges and its end take place one after the other."""
        row = (await self.session.execute(BY_REFRESH_TOKEN, {"hash": hash})).first()
        return None if row is None else LoginRow(*row)

    async def use(self, hash: bytes, grace: timedelta) -> bool:
        """Use up a refresh token. False where this was done longer ago than `grace`."""
        used_at = func.coalesce(RefreshToken.used_at, func.now())
        fresh = RefreshToken.used_at > func.now() - literal(grace)
        statement = update(RefreshToken).where(RefreshToken.hash == hash).values(used_at=used_at).returning(fresh)
        return bool(await self.session.scalar(statement))

    async def prolong(self, id: UUID, lifetime: timedelta) -> None:
        values = {"used_at": func.now(), "expires_at": func.now() + literal(lifetime)}
        await self.session.execute(update(Login).where(Login.id == id).values(**values))

    async def delete_login(self, id: UUID, user_id: int) -> bool:
        """End a session of a user. False where the user has no such session."""
        statement = delete(Login).where(Login.id == id, Login.user_id == user_id).returning(Login.id)
        return await self.session.scalar(statement) is not None

    async def delete_logins(self, user_id: int, but: UUID | None = None) -> None:
        """End all sessions of a user, or all but one."""
        statement = delete(Login).where(Login.user_id == user_id)
        await self.session.execute(statement if but is None else statement.where(Login.id != but))

    async def add_mail_token(self, hash: bytes, user_id: int, purpose: str, lifetime: timedelta) -> None:
        expires_at = func.now() + literal(lifetime)
        values = {"hash": hash, "user_id": user_id, "purpose": purpose, "expires_at": expires_at}
        await self.session.execute(insert(MailToken).values(**values))

    async def take_mail_token(self, hash: bytes, purpose: str) -> int | None:
        """Use up a link that was mailed. The id of its user; None where it is not valid. Of two uses, one gets it."""
        valid = (MailToken.hash == hash, MailToken.purpose == purpose, MailToken.expires_at > func.now())
        return await self.session.scalar(delete(MailToken).where(*valid).returning(MailToken.user_id))

    async def delete_mail_tokens(self, user_id: int, purpose: str) -> None:
        await self.session.execute(delete(MailToken).where(MailToken.user_id == user_id, MailToken.purpose == purpose))

    async def prune(self, used_before: timedelta) -> None:
        """Delete what has expired, and refresh tokens that were exchanged longer ago."""
        for kind in (Login, MailToken):
            await self.session.execute(delete(kind).where(kind.expires_at < func.now()))
        old = func.now() - literal(used_before)
        await self.session.execute(delete(RefreshToken).where(RefreshToken.used_at < old))


OwnTransaction: TypeAlias = Callable[[], AbstractAsyncContextManager[AuthRepository]]
"""Begins a transaction that is committed although the request fails."""
