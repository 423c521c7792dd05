"""A read takes one round trip and no transaction; between two reads it holds no connection.

`Reads` is a handle on a pool, not a session: each call acquires a connection, fetches and releases. So reads may be
gathered, and a type checker refuses a write on them. A statement is said in SQLAlchemy and compiled once; it runs on
the driver, since the engine's part of a read would cost several times what PostgreSQL's does.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar, cast

import asyncpg
from sqlalchemy import Float, Select
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler

from app.config import DatabaseSettings
from app.database.errors import DRIVER_ERRORS, is_connection_lost, translate
from app.database.pool import ReadPool

log = logging.getLogger(__name__)

RowT = TypeVar("RowT")
RowT_co = TypeVar("RowT_co", covariant=True)
AnySelect: TypeAlias = Select[*tuple[Any, ...]]
Processor: TypeAlias = Callable[[Any], Any]

FLOAT8, NUMERIC = 701, 1700
DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class Query(Generic[RowT_co]):
    """A statement and the type of its rows, which is called with the selected columns in their order."""

    row: Callable[..., RowT_co]
    statement: AnySelect

    @cached_property
    def sql(self) -> str:
        return str(self._compiled)

    def arguments(self, given: dict[str, Any]) -> list[Any]:
        """The bind parameters in the driver's order. Raises KeyError for one that is missing."""
        return [
            constant if name is None else process(given[name]) if process else given[name]
            for name, constant, process in self._parameters
        ]

    def rows(self, records: Sequence[asyncpg.Record]) -> list[RowT_co]:
        row, processors = self.row, self._processors
        rows = []
        for record in records:
            values = list(record)
            for column, process in processors:
                values[column] = process(values[column])
            rows.append(row(*values))
        return rows

    @cached_property
    def _compiled(self) -> SQLCompiler:
        return self.statement.compile(dialect=DIALECT)

    @cached_property
    def _parameters(self) -> list[tuple[str | None, Any, Processor | None]]:
        """For each parameter its name and how its type goes to the driver; a literal has no name, but a value."""
        parameters: list[tuple[str | None, Any, Processor | None]] = []
        for name in self._compiled.positiontup or ():
            parameter = self._compiled.binds[name]
            process = parameter.type.dialect_impl(DIALECT).bind_processor(DIALECT)
            if parameter.required:
                parameters.append((name, None, process))
            else:
                value = parameter.effective_value
                parameters.append((None, process(value) if process else value, None))
        return parameters

    @cached_property
    def _processors(self) -> list[tuple[int, Processor]]:
        """The columns whose type is not the driver's, and how it comes from there."""
        processors: list[tuple[int, Processor]] = []
        for index, column in enumerate(self.statement.selected_columns):
            # The OID matters to numbers alone: does the driver send a float or a Decimal?
            oid = FLOAT8 if isinstance(column.type, Float) else NUMERIC
            if process := column.type.dialect_impl(DIALECT).result_processor(DIALECT, oid):
                processors.append((index, process))
        return processors


class Reads:
    """Raises UnavailableError wherever the database is away, busy or too slow."""

    def __init__(self, pool: ReadPool, settings: DatabaseSettings) -> None:
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
                if isinstance(error, TimeoutError) or not is_connection_lost(error):
                    raise
                return await self._fetch_once(sql, arguments)  # a read may be asked twice
        except DRIVER_ERRORS as error:
            if told := translate(error):
                raise told from error
            raise
        finally:
            self._account(sql, perf_counter() - started)

    async def _fetch_once(self, sql: str, arguments: list[Any], pool: ReadPool | None = None) -> list[asyncpg.Record]:
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

    def _account(self, sql: str, seconds: float) -> None:
        self.statements += 1
        if seconds > self._slow_seconds:
            log.warning("A statement took %(seconds).3f s: %(sql)s", {"seconds": seconds, "sql": sql})
