"""Returning commits; raising rolls back. Nothing else in the service commits.

async with database.transaction() as transaction:
    await transaction.first(RENAME, id=5, name="Lamps")  # on the driver, as reads are
    transaction.session.add(Category(name="Chairs"))  # in the same transaction, by SQLAlchemy's ORM
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any, NoReturn, Self, TypeVar, cast

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from plinth.database.errors import DRIVER_ERRORS, is_connection_lost, may_be_repeated, translate
from plinth.database.sessions import SessionPool, guest_session
from plinth.database.statements import Statement, log_statement

log = logging.getLogger(__name__)

RowT = TypeVar("RowT")
DATABASE_ERRORS = (SQLAlchemyError, *DRIVER_ERRORS)
ROLLBACK_SECONDS = 2.0
NOT_OPEN = "A transaction can be used from its beginning to its end, inside of its `async with`."
NOTHING_COMMITTED = "Nothing was committed: something had failed in the database, and its error was passed over."


class Transaction:
    """One unit of work: takes a connection with its first statement, and holds it to its end.

    Raises ConflictError or UnavailableError for what the database refuses, at COMMIT too.
    """

    def __init__(self, pool: SessionPool, slow_seconds: float, on_commit: Callable[[], None] | None = None) -> None:
        self._pool = pool
        self._slow_seconds = slow_seconds
        self._on_commit = on_commit
        self._connection: asyncpg.Connection | None = None
        self._session: AsyncSession | None = None
        self._is_open = False
        self._has_begun = False
        self._may_be_committed = False
        self._after_commit: list[Callable[[], Awaitable[None]]] = []

    async def all(self, statement: Statement[RowT], /, **parameters: Any) -> list[RowT]:
        return statement.rows(await self._fetch(statement.sql, statement.arguments(parameters)))

    async def first(self, statement: Statement[RowT], /, **parameters: Any) -> RowT | None:
        rows = statement.rows(await self._fetch(statement.sql, statement.arguments(parameters)))
        return rows[0] if rows else None

    async def copy_rows(self, table: str, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
        """Stream rows into a table, a hundred times faster than INSERTs. Values are the driver's: money in minor
        units."""
        connection = await self.connection()
        try:
            await connection.copy_records_to_table(table, columns=columns, records=rows)
        except DRIVER_ERRORS as error:
            _raise_told(error, "COPY")

    @property
    def session(self) -> AsyncSession:
        """The ORM, for what is easier said of objects. It is flushed at the end; `begin_nested()` is for what may fail
        without the rest, on the driver as well."""
        if self._session is None:
            self._session = guest_session(self._pool, self.connection)
        return self._session

    def after_commit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run `callback` once this is committed and before the response leaves; never after a rollback.

        If the answer to COMMIT is lost, nobody can tell whether it was, and the callback runs as well.
        """
        self._after_commit.append(callback)

    async def connection(self) -> asyncpg.Connection:
        """The driver's, for what has no word here. The transaction has begun on it."""
        if self._connection is None:
            if not self._is_open:
                raise RuntimeError(NOT_OPEN)
            if self._has_begun:
                raise RuntimeError("Nothing may be gathered on a transaction, and one that could not begin is over.")
            self._has_begun = True
            try:
                self._connection = await self._begin()
            except DRIVER_ERRORS as error:
                _raise_told(error, "BEGIN")
        return self._connection

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                await self._commit()
        except DATABASE_ERRORS as failed:
            _raise_told(failed, "COMMIT")
        finally:
            self._is_open = False
            if self._connection is not None:
                await self._roll_back()
            if self._may_be_committed:
                await self._run_after_commit()
        if isinstance(error, (SQLAlchemyError, asyncpg.PostgresError)):
            _raise_told(error)

    async def _begin(self, again: bool = True) -> asyncpg.Connection:
        connection = await self._pool.acquire()
        try:
            await connection.execute("BEGIN")
            if not self._is_open:  # any more
                raise RuntimeError(NOT_OPEN)
        except BaseException as error:
            self._pool.discard(connection)
            if again and may_be_repeated(error):
                return await self._begin(again=False)
            raise
        return connection

    async def _commit(self) -> None:
        if self._session is not None:
            await self._session.run_sync(Session.commit)  # which flushes, and refuses what was rolled back
            await self._session.run_sync(Session.close)
        if self._connection is None:
            if self._has_begun:
                raise RuntimeError(NOTHING_COMMITTED)
            self._may_be_committed = True
            return
        self._may_be_committed = not self._connection.is_closed()
        try:
            status = await self._end("COMMIT")
        except asyncpg.PostgresError as error:
            self._may_be_committed = is_connection_lost(error)
            raise
        if status != "COMMIT":
            self._may_be_committed = False
            raise RuntimeError(NOTHING_COMMITTED)

    async def _roll_back(self) -> None:
        """A connection that does not answer soon is given up: PostgreSQL rolls back what it loses sight of."""
        try:
            async with asyncio.timeout(ROLLBACK_SECONDS):
                if self._session is not None:
                    await self._session.run_sync(Session.close)
                await self._end("ROLLBACK")
        except DATABASE_ERRORS:
            log.info("A connection was closed since it could not be rolled back", exc_info=True)
        finally:
            if self._connection is not None:
                self._pool.discard(self._connection)

    async def _end(self, command: str) -> str:
        connection, self._connection, self._is_open = cast(asyncpg.Connection, self._connection), None, False
        try:
            status: str = await connection.execute(command)
        except asyncpg.PostgresError:
            self._pool.release(connection)
            raise
        except BaseException:
            self._pool.discard(connection)  # cancelled or out of time: nobody knows what it is doing
            raise
        self._pool.release(connection)
        return status

    async def _fetch(self, sql: str, arguments: list[Any]) -> list[asyncpg.Record]:
        connection = await self.connection()
        started = perf_counter()
        try:
            return cast(list[asyncpg.Record], await connection.fetch(sql, *arguments))
        except DRIVER_ERRORS as error:
            _raise_told(error, sql)
        finally:
            log_statement(sql, perf_counter() - started, self._slow_seconds)

    async def _run_after_commit(self) -> None:
        cancelled: asyncio.CancelledError | None = None
        if self._on_commit is not None and self._has_begun:
            self._on_commit()
        while self._after_commit:
            callback = self._after_commit.pop(0)
            try:
                await callback()
            except asyncio.CancelledError as error:
                cancelled = error  # the others are owed all the same
            except Exception:
                # The work is committed: to answer with an error now would be a lie.
                log.exception("%r failed after the commit", callback)
        if cancelled is not None:
            raise cancelled


def _raise_told(error: Exception, sql: str = "") -> NoReturn:
    if told := translate(error, sql):
        raise told from error
    raise error
