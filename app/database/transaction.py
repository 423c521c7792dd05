"""Returning commits; raising rolls back. Nothing else in the service commits.

async with database.transaction() as transaction:
    await transaction.first(RENAME, id=5, name="Lamps")  # on the driver, as reads are
    transaction.session.add(Category(name="Chairs"))  # in the same transaction, by SQLAlchemy's ORM
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.errors import DRIVER_ERRORS, is_connection_lost, may_be_repeated, translate
from app.database.sessions import SessionPool, join
from app.database.statements import Statement, log_if_slow

log = logging.getLogger(__name__)

RowT = TypeVar("RowT")
DATABASE_ERRORS = (SQLAlchemyError, *DRIVER_ERRORS)
ROLLBACK_SECONDS = 2.0


class Transaction:
    """One unit of work: takes a connection with its first statement, and holds it to its end.

    Raises ConflictError or UnavailableError for what the database refuses, at COMMIT too.
    """

    def __init__(self, pool: SessionPool, slow_seconds: float, committed: Callable[[], None] | None = None) -> None:
        self._pool = pool
        self._slow_seconds = slow_seconds
        self._committed = committed
        self._connection: asyncpg.Connection | None = None
        self._session: AsyncSession | None = None
        self._is_over = False
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
            _tell(error, "COPY")

    @property
    def session(self) -> AsyncSession:
        """The ORM, for what is easier said of objects. It flushes at the end; to commit or to roll back is not its."""
        if self._session is None:
            self._session = join(self._pool, self.connection)
        return self._session

    def after_commit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run `callback` once this is committed and before the response leaves; never after a rollback.

        If the answer to COMMIT is lost, nobody can tell whether it was, and the callback runs as well.
        """
        self._after_commit.append(callback)

    async def connection(self) -> asyncpg.Connection:
        """The driver's, for what has no word here. The transaction has begun on it."""
        if self._is_over:
            raise RuntimeError("The transaction is over; do what belongs to it before it ends.")
        if self._connection is None:
            try:
                self._connection = await self._begin()
            except DRIVER_ERRORS as error:
                _tell(error, "BEGIN")
        return self._connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._commit()
        except DATABASE_ERRORS as failed:
            _tell(failed, "COMMIT")
        finally:
            self._is_over = True
            if self._connection is not None:
                await self._roll_back()
            if self._may_be_committed:
                await self._run_after_commit()
        if isinstance(error, SQLAlchemyError):
            _tell(error)

    async def _begin(self, again: bool = True) -> asyncpg.Connection:
        connection = await self._pool.acquire()
        try:
            await connection.execute("BEGIN")
        except BaseException as error:
            self._pool.discard(connection)
            if again and may_be_repeated(error):
                return await self._begin(again=False)
            raise
        return connection

    async def _commit(self) -> None:
        if self._session is not None:
            await self._session.flush()
            await self._session.close()
        self._may_be_committed = True
        if self._connection is None:
            return
        try:
            status = await self._end("COMMIT")
        except asyncpg.PostgresError as error:
            self._may_be_committed = is_connection_lost(error)
            raise
        if status != "COMMIT":
            self._may_be_committed = False
            raise RuntimeError("Nothing was committed: a statement had failed, and its error was passed over.")

    async def _roll_back(self) -> None:
        """A connection that does not answer soon is given up: PostgreSQL rolls back what it loses sight of."""
        try:
            if self._session is not None:
                await self._session.close()
            await self._end("ROLLBACK", ROLLBACK_SECONDS)
        except DATABASE_ERRORS:
            log.info("A connection was closed since it could not be rolled back", exc_info=True)
        finally:
            if self._connection is not None:
                self._pool.discard(self._connection)

    async def _end(self, command: str, timeout_seconds: float | None = None) -> str:
        connection, self._connection = cast(asyncpg.Connection, self._connection), None
        try:
            status: str = await connection.execute(command, timeout=timeout_seconds)
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
            _tell(error, sql)
        finally:
            log_if_slow(sql, perf_counter() - started, self._slow_seconds)

    async def _run_after_commit(self) -> None:
        if self._committed is not None:
            self._committed()
        for callback in self._after_commit:
            try:
                await callback()
            except Exception:
                # The work is committed: to answer with an error now would be a lie.
                log.exception("%r failed after the commit", callback)


def _tell(error: Exception, sql: str = "") -> NoReturn:
    if told := translate(error, sql):
        raise told from error
    raise error
