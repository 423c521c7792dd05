"""Reads outside of a transaction: one round trip each, and no connection held between two of them.

`Reads` is a handle on asyncpg's own pool, not a session: each call acquires a connection, fetches and releases it. So
reads may be gathered. Its connections are read-only: PostgreSQL itself refuses a function that writes.
"""

import asyncio
import logging
from contextlib import suppress
from time import perf_counter
from typing import Any, TypeVar, cast

import asyncpg
import orjson

from plinth.database.connections import READ_ONLY, Generation, driver_arguments
from plinth.database.cursors import Cursors
from plinth.database.errors import (
    DATABASE_AWAY,
    DATABASE_BUSY,
    DRIVER_ERRORS,
    is_connection_lost,
    raise_translated,
)
from plinth.database.query import Query
from plinth.database.settings import DatabaseSettings
from plinth.errors import UnavailableError

log = logging.getLogger(__name__)

RowT = TypeVar("RowT")

CLOSE_SECONDS = 2.0
CUSTOM_PLAN = "SET LOCAL plan_cache_mode = force_custom_plan"


class Reads:
    """Raises UnavailableError where the database cannot be reached, every connection is busy, or a read is too slow."""

    def __init__(
        self, settings: DatabaseSettings, application_name: str, size: int, generation: Generation | None = None
    ) -> None:
        self._settings = settings
        self.cursors = Cursors(settings.cursor_key)
        self._generation = generation or Generation()
        self._pooled_generation = self._generation.number
        self._pool = asyncpg.create_pool(
            min_size=0,  # connects with the first read: a worker has to start while the database is away
            max_size=size,
            max_inactive_connection_lifetime=settings.pool_recycle_seconds,
            init=_set_codecs,
            reset=_keep_state,
            **driver_arguments(settings, application_name, READ_ONLY),
        )
        self.statements = 0  # run so far

    async def open(self) -> None:
        await self._pool

    async def close(self) -> None:
        """Close the pool, for which reads that are running have CLOSE_SECONDS."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pool.close()
        except (TimeoutError, *DRIVER_ERRORS):
            self._pool.terminate()

    async def all(self, query: Query[RowT], /, **parameters: Any) -> list[RowT]:
        return query.rows(await self._fetch(query, parameters))

    async def first(self, query: Query[RowT], /, **parameters: Any) -> RowT | None:
        rows = query.rows(await self._fetch(query, parameters))
        return rows[0] if rows else None

    async def _fetch(self, query: Query[Any], parameters: dict[str, Any]) -> list[asyncpg.Record]:
        if query.locks:
            raise TypeError("A SELECT with a locking clause needs a transaction: run it on the session.")
        sql, arguments = query.bind(parameters)
        started = perf_counter()
        try:
            try:
                return await self.fetch_once(sql, arguments, query.custom_plan)
            except DRIVER_ERRORS as error:
                if not _is_safe_to_retry(error):
                    raise
                return await self.fetch_once(sql, arguments, query.custom_plan)
        except DRIVER_ERRORS as error:
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                raise  # a function that writes, which is a mistake in the service
            raise_translated(error)
        finally:
            self.statements += 1
            log_statement(sql, perf_counter() - started, self._settings.slow_statement_seconds)

    async def fetch_once(self, sql: str, arguments: list[Any], custom_plan: bool = False) -> list[asyncpg.Record]:
        connection = await self._acquire()
        generation = self._pooled_generation
        try:
            # PgBouncer in transaction mode ignores the startup parameter that makes a connection read-only, and without
            # named statements it may send Parse and Bind to two servers. Both need a transaction around the read.
            if self._settings.prepared_statements and _is_read_only(connection) and not custom_plan:
                return cast(list[asyncpg.Record], await connection.fetch(sql, *arguments))
            async with connection.transaction(readonly=True):
                if custom_plan:
                    await connection.execute(CUSTOM_PLAN)
                return cast(list[asyncpg.Record], await connection.fetch(sql, *arguments))
        except DRIVER_ERRORS as error:
            if _is_safe_to_retry(error):
                with suppress(asyncpg.InterfaceError):  # its end has arrived, and asyncpg has released it
                    connection.terminate()
                self._generation.lost(generation)
            raise
        finally:
            await self._pool.release(connection)

    async def _acquire(self) -> Any:
        if self._pooled_generation != self._generation.number:
            self._pooled_generation = self._generation.number
            await self._pool.expire_connections()
        try:
            return await self._pool.acquire(timeout=self._settings.pool_timeout_seconds)
        except TimeoutError as error:
            busy = self._pool.get_size() == self._pool.get_max_size()
            raise UnavailableError(DATABASE_BUSY if busy else DATABASE_AWAY) from error
        except DRIVER_ERRORS as error:
            raise_translated(error)


def log_statement(sql: str, seconds: float, slow_seconds: float) -> None:
    if seconds > slow_seconds:
        log.warning("A statement took %(seconds).3f s: %(sql)s", {"seconds": seconds, "sql": sql})
    else:
        log.debug("%s", sql)


def _is_safe_to_retry(error: Exception) -> bool:
    """A read whose connection was lost. A TimeoutError is not: the server may be as slow the second time."""
    is_read_only = isinstance(error, asyncpg.ReadOnlySQLTransactionError)
    return is_connection_lost(error) and not isinstance(error, TimeoutError) and not is_read_only


def _is_read_only(connection: Any) -> bool:
    """PostgreSQL reports the parameter when a connection is made, so that this costs no round trip."""
    return getattr(connection.get_settings(), "default_transaction_read_only", "off") == "on"


async def _set_codecs(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):  # SQLAlchemy's types leave these to the driver
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=orjson.loads)


async def _keep_state(connection: asyncpg.Connection) -> None:
    """Nothing to reset after a read. asyncpg's own reset would be a second round trip."""
