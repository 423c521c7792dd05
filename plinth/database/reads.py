"""A read takes one round trip and no transaction; between two reads it holds no connection.

`Reads` is a handle on a pool, not a session: each call acquires a connection, fetches and releases. So reads may be
gathered, and a type checker refuses a write on them.
"""

from time import perf_counter
from typing import Any, TypeVar, cast

import asyncpg

from plinth.database.errors import DRIVER_ERRORS, may_be_repeated, translate
from plinth.database.pool import Pool
from plinth.database.settings import DatabaseSettings
from plinth.database.statements import Query, log_statement

RowT = TypeVar("RowT")


class Reads:
    """Raises UnavailableError wherever the database is away, busy or too slow."""

    def __init__(self, pool: Pool, settings: DatabaseSettings) -> None:
        self._pool = pool
        self._slow_seconds = settings.slow_statement_seconds
        self._prepared_statements = settings.prepared_statements
        self.statements = 0  # run so far

    async def all(self, query: Query[RowT], /, **parameters: Any) -> list[RowT]:
        return query.rows(await self._fetch(query.sql, query.arguments(parameters)))

    async def first(self, query: Query[RowT], /, **parameters: Any) -> RowT | None:
        rows = query.rows(await self._fetch(query.sql, query.arguments(parameters)))
        return rows[0] if rows else None

    async def _fetch(self, sql: str, arguments: list[Any]) -> list[asyncpg.Record]:
        started = perf_counter()
        try:
            try:
                return await self._fetch_once(sql, arguments)
            except DRIVER_ERRORS as error:
                if not may_be_repeated(error):
                    raise
                return await self._fetch_once(sql, arguments)  # a read may be asked twice
        except DRIVER_ERRORS as error:
            if told := translate(error):
                raise told from error
            raise
        finally:
            self.statements += 1
            log_statement(sql, perf_counter() - started, self._slow_seconds)

    async def _fetch_once(self, sql: str, arguments: list[Any], pool: Pool | None = None) -> list[asyncpg.Record]:
        pool = pool or self._pool
        connection = await pool.acquire()
        try:
            if self._prepared_statements:
                records = await connection.fetch(sql, *arguments)
            else:
                async with connection.transaction(readonly=True):  # keeps PgBouncer's server for parse and bind
                    records = await connection.fetch(sql, *arguments)
        except asyncpg.PostgresError:
            pool.release(connection)
            raise
        except BaseException:
            pool.discard(connection)  # cancelled or out of time: nobody knows what it is doing
            raise
        pool.release(connection)
        return cast(list[asyncpg.Record], records)
