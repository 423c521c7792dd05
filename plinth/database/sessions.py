"""SQLAlchemy's session as a guest of a transaction: it runs where that has begun, and is not asked when it ends."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import asyncpg
from sqlalchemy import Connection, NullPool, PoolProxiedConnection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_

from plinth.database.errors import DATABASE_AWAY
from plinth.database.pool import PREPARED_STATEMENTS, Pool, connect, connection_options
from plinth.database.settings import DatabaseSettings
from plinth.errors import UnavailableError

UNPREPARED = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


class SessionPool(Pool):
    """Connections that SQLAlchemy's engine has opened, so that a session can join what is done on one."""

    def __init__(self, settings: DatabaseSettings, application_name: str) -> None:
        super().__init__(
            self._open_by_engine,
            settings.pool_size,
            timeout_seconds=settings.pool_timeout_seconds,
            recycle_seconds=settings.pool_recycle_seconds,
        )
        self._engine = create_engine(settings, application_name)
        self._wrapped: dict[asyncpg.Connection, PoolProxiedConnection] = {}

    def engine_side(self, connection: asyncpg.Connection) -> Connection:
        """For one session: what one does to its connection (`schema_translate_map`) is not the next one's."""
        # When it is lost it must not open another, of which nobody here would know.
        return Connection(self._engine.sync_engine, connection=self._wrapped[connection], _allow_revalidate=False)

    def release(self, connection: asyncpg.Connection) -> None:
        if self._wrapped[connection].is_valid:
            super().release(connection)
        else:
            self.discard(connection)

    def discard(self, connection: asyncpg.Connection) -> None:
        self._wrapped.pop(connection, None)
        super().discard(connection)

    async def _open_by_engine(self) -> asyncpg.Connection:
        opened = await self._engine.connect()
        connection: asyncpg.Connection = (await opened.get_raw_connection()).driver_connection
        self._wrapped[connection] = await opened.run_sync(_without_pool)
        return connection


def _without_pool(connection: Connection) -> PoolProxiedConnection:
    connection.detach()
    return connection.connection


def create_engine(settings: DatabaseSettings, application_name: str) -> AsyncEngine:
    """For connections on which others begin and end transactions: to SQLAlchemy, each statement is one by itself."""
    engine = create_async_engine(
        settings.url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={
            **connection_options(settings, application_name),
            "async_creator_fn": connect,
            **({"prepared_statement_cache_size": PREPARED_STATEMENTS} if settings.prepared_statements else UNPREPARED),
        },
    )
    event.listen(engine.sync_engine, "handle_error", _tell_silence)
    return engine


def _tell_silence(context: ExceptionContext) -> None:
    """A statement's own timeout; a TimeoutError of whatever else runs in a transaction is not the database's."""
    if isinstance(context.original_exception, TimeoutError):
        raise UnavailableError(DATABASE_AWAY) from context.original_exception


def guest_session(pool: SessionPool, begun: Callable[[], Awaitable[asyncpg.Connection]]) -> AsyncSession:
    """A session on the connection that `begun` gives, which is asked for when the session has something to say."""
    return AsyncSession(sync_session_class=_Guest, expire_on_commit=False, info={"begun": begun, "pool": pool})


class _Guest(Session):
    def get_bind(self, *_: Any, **__: Any) -> Connection:
        connection = await_(self.info["begun"]())
        if "bind" not in self.info:
            self.info["bind"] = self.info["pool"].engine_side(connection)
        bind: Connection = self.info["bind"]
        return bind

    def connection(
        self, bind_arguments: dict[str, Any] | None = None, execution_options: Mapping[str, Any] | None = None
    ) -> Connection:
        if "isolation_level" in (execution_options or ()):
            raise RuntimeError("Execute SET TRANSACTION ISOLATION LEVEL: the transaction is not the session's.")
        return super().connection(bind_arguments, execution_options)

    def begin_nested(self) -> SessionTransaction:
        nested = super().begin_nested()
        self.connection()  # here the part begins, also for what the driver does
        return nested

    def begin(self, nested: bool = False) -> SessionTransaction:
        if not nested:
            raise RuntimeError("The transaction has begun; begin_nested() begins a part of it.")
        return super().begin(nested)

    def commit(self) -> NoReturn:
        raise RuntimeError("A transaction is committed when what it is for returns.")

    def rollback(self) -> NoReturn:
        raise RuntimeError("Raise to roll a transaction back; begin_nested() is for a part of it.")

    def close(self) -> NoReturn:
        raise RuntimeError("The session ends with its transaction.")
