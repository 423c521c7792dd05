"""Reads outside of a transaction: one round trip each, and no connection held between two of them.

`Reads` is a handle on asyncpg's own pool, not a session: each call acquires a connection, fetches and releases it. So
reads may be gathered. Its connections are read-only: PostgreSQL itself refuses a function that writes.
"""

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import Any, TypeVar, cast

import asyncpg

from plinth.database.connections import READ_ONLY, driver_arguments, is_read_only, keep_state, set_codecs
from plinth.database.cursors import Cursors
from plinth.database.errors import DATABASE_AWAY, DATABASE_BUSY, DRIVER_ERRORS, is_safe_to_retry, raise_translated
from plinth.database.operations import Operation
from plinth.database.pools import report_pool, timed_wait
from plinth.database.pulse import Pulse
from plinth.database.query import Query
from plinth.database.settings import DatabaseSettings
from plinth.database.statements import StatementLog
from plinth.errors import UnavailableError

RowT = TypeVar("RowT")

CLOSE_SECONDS = 2.0
PING_SHARE = 0.75  # of the time that there is to connect
GENERIC_PLAN = "SET LOCAL plan_cache_mode = force_generic_plan"
CUSTOM_PLAN = "SET LOCAL plan_cache_mode = force_custom_plan"


class Reads:
    """Raises UnavailableError where the database cannot be reached, every connection is busy, or a read is too slow.

    None holds a connection for longer than its statement, which DATABASE_STATEMENT_TIMEOUT_SECONDS ends.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        application_name: str,
        size: int,
        generation: Pulse | None = None,
        name: str = "reads",
    ) -> None:
        """`generation` is the pulse that all pools for the server share; without it, this one pings on itself.

        `name` is that of the pool in the metrics.
        """
        self._settings, self._name, self._size = settings, name, size
        self._callers = 0  # that have a connection or wait for one
        self.cursors = Cursors(settings.cursor_key)
        self.log = StatementLog(settings, self._explain)
        self.pulse = generation or Pulse(self.ping, settings.connect_timeout_seconds * PING_SHARE)
        self._pooled_generation = self.pulse.number
        self._pool = asyncpg.create_pool(
            min_size=0,  # connects with the first read: a worker has to start while the database is away
            max_size=size,
            max_inactive_connection_lifetime=settings.pool_recycle_seconds,
            connect=self.pulse.connect,
            init=set_codecs,
            reset=keep_state,
            **driver_arguments(settings, application_name, READ_ONLY),
        )
        self.statements = 0  # run so far

    async def open(self) -> None:
        await self._pool

    async def close(self) -> None:
        """Close the pool, for which reads that are running have CLOSE_SECONDS."""
        await self.pulse.close()
        await self.log.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pool.close()
        except (TimeoutError, *DRIVER_ERRORS):
            self._pool.terminate()

    async def all(self, query: Query[RowT], /, **parameters: Any) -> list[RowT]:
        return query.rows(await self._fetch(query, parameters))

    async def first(self, query: Query[RowT], /, **parameters: Any) -> RowT | None:
        return next(iter(query.rows(await self._fetch(query, parameters))), None)

    async def _fetch(self, query: Query[Any], parameters: dict[str, Any]) -> list[asyncpg.Record]:
        if query.locks:
            raise TypeError("A SELECT with a locking clause needs a transaction: run it on the session.")
        sql, arguments = query.bind(parameters)
        sent = self.log.commented(sql)
        started = perf_counter()
        try:
            try:
                return await self.fetch_once(sent, arguments, query.custom_plan)
            except DRIVER_ERRORS as error:
                if not is_safe_to_retry(error):
                    raise
                return await self.fetch_once(sent, arguments, query.custom_plan)
        except DRIVER_ERRORS as error:
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                raise  # a function that writes, which is a mistake in the service
            raise_translated(error)
        finally:
            self.statements += 1
            self.log.add(sql, perf_counter() - started, arguments)

    async def ping(self) -> None:
        """Raise unless the server answers. It is asked even while others are not sent to it."""
        await self._fetch_on_acquired("SELECT 1", [], False)

    async def fetch_once(self, sql: str, arguments: list[Any], custom_plan: bool = False) -> list[asyncpg.Record]:
        self.pulse.check()
        self._callers += 1
        try:
            return await self._fetch_on_acquired(sql, arguments, custom_plan)
        finally:
            self._callers -= 1

    async def _fetch_on_acquired(self, sql: str, arguments: list[Any], custom_plan: bool) -> list[asyncpg.Record]:
        operation = await self._acquire()
        generation = self._pooled_generation
        try:
            rows = await self._fetch_on(operation.connection, sql, arguments, custom_plan)
        except AttributeError as error:
            if generation != self.pulse.number:  # asyncpg's own: the pulse ended the connection before it was sent
                raise UnavailableError(DATABASE_AWAY) from error
            raise
        except DRIVER_ERRORS as error:
            if is_safe_to_retry(error):
                with suppress(asyncpg.InterfaceError):  # its end has arrived, and asyncpg has released it
                    operation.connection.terminate()
                self.pulse.lost(generation)
            raise
        finally:
            await self._release(operation, generation)
        self.pulse.answers += 1
        return rows

    async def _fetch_on(self, connection: Any, sql: str, arguments: list[Any], custom: bool) -> list[asyncpg.Record]:
        # PgBouncer in transaction mode ignores the startup parameter that makes a connection read-only, and without
        # named statements it may send Parse and Bind to two servers. Both need a transaction around the read.
        if self._settings.prepared_statements and is_read_only(connection) and not custom:
            return cast(list[asyncpg.Record], await connection.fetch(sql, *arguments))
        async with connection.transaction(readonly=True):
            if custom:
                await connection.execute(CUSTOM_PLAN)
            return cast(list[asyncpg.Record], await connection.fetch(sql, *arguments))

    async def _explain(self, sql: str, parameters: int) -> list[asyncpg.Record]:
        """The plan that a prepared statement has for any values. The statement is not run.

        `EXPLAIN (GENERIC_PLAN)` is of no use here: the driver binds its parameters, and NULL has a plan of its own.
        """
        values = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
        operation = await self._acquire()
        generation, connection = self._pooled_generation, operation.connection
        try:
            async with connection.transaction(readonly=True):
                await connection.execute(f"{GENERIC_PLAN}; PREPARE plinth_explained AS {sql}")
                return cast(list[asyncpg.Record], await connection.fetch(f"EXPLAIN EXECUTE plinth_explained{values}"))
        finally:
            with suppress(*DRIVER_ERRORS):
                await connection.execute("DEALLOCATE plinth_explained")
            await self._release(operation, generation)

    def report(self) -> None:
        """Set the metrics of the pool."""
        report_pool(self._name, self._size, min(self._callers, self._size), max(0, self._callers - self._size))

    async def _acquire(self) -> Operation:
        """What waits for a connection until it has one, and has to be released then."""
        if self._pooled_generation != self.pulse.number:
            self._pooled_generation = self.pulse.number
            await self._pool.expire_connections()
        operation = self.pulse.begin()
        try:
            if self._callers <= self._size:
                await operation.connect(self._pool.acquire(timeout=self._settings.connect_timeout_seconds))
            else:
                with timed_wait(self._name):
                    await operation.connect(self._pool.acquire(timeout=self._settings.pool_timeout_seconds))
            return operation
        except BaseException as error:
            self.pulse.end(operation)
            if isinstance(error, TimeoutError):
                busy = self._pool.get_size() == self._pool.get_max_size() and not self.pulse.is_silent
                raise UnavailableError(DATABASE_BUSY if busy else DATABASE_AWAY) from error
            if isinstance(error, DRIVER_ERRORS):
                raise_translated(error)
            raise

    async def _release(self, operation: Operation, generation: int) -> None:
        try:
            await self._pool.release(operation.connection)
        except asyncpg.InternalClientError:
            if generation == self.pulse.number:  # else the pulse ended the connection meanwhile, and so released it
                raise
        finally:
            self.pulse.end(operation)
