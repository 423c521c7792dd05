"""What is asked of the database: said in SQLAlchemy, compiled once, and run on the driver.

The engine's part of a statement would cost several times what PostgreSQL's does.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Generic, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import Float, Select, UpdateBase
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler

log = logging.getLogger(__name__)

RowT_co = TypeVar("RowT_co", covariant=True)
AnySelect: TypeAlias = Select[*tuple[Any, ...]]
Processor: TypeAlias = Callable[[Any], Any]

FLOAT8, NUMERIC = 701, 1700
DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class Statement(Generic[RowT_co]):
    """A statement with bind parameters, and the type of its rows, which is called with the columns in their order."""

    row: Callable[..., RowT_co]
    statement: AnySelect | UpdateBase

    @cached_property
    def sql(self) -> str:
        return str(self._compiled)

    def arguments(self, given: dict[str, Any]) -> list[Any]:
        """The bind parameters in the driver's order. Raises KeyError for one that is missing, TypeError for one that is
        not there."""
        if not self._names.issuperset(given):
            raise TypeError(f"The statement has no parameter {', '.join(given.keys() - self._names)}.")
        if self._defaults:
            given = {name: make() for name, make in self._defaults.items()} | given
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
            if parameter.expanding:
                raise TypeError(f"{name} is a list of any length; compare with any_(), to which it is one ARRAY.")
            process = parameter.type.dialect_impl(DIALECT).bind_processor(DIALECT)
            if parameter.required or name in self._defaults:
                parameters.append((name, None, process))
            else:
                value = parameter.effective_value
                parameters.append((None, process(value) if process else value, None))
        return parameters

    @cached_property
    def _names(self) -> set[str | None]:
        return {name for name, *_ in self._parameters}

    @cached_property
    def _defaults(self) -> dict[str, Callable[[], Any]]:
        """How Python, and not the database, makes what is not named: bindparam("size", 20), or a column's default."""
        named = [each for each in self._compiled.binds.values() if not (each.required or each.unique)]
        defaults = {each.key: partial(getattr, each, "effective_value") for each in named}
        made = [(column, column.default) for column in self._compiled.insert_prefetch]
        made += [(column, column.onupdate) for column in self._compiled.update_prefetch]
        return defaults | {column.key: partial(_make, default) for column, default in made}

    @cached_property
    def _processors(self) -> list[tuple[int, Processor]]:
        """The columns whose type is not the driver's, and how it comes from there."""
        processors: list[tuple[int, Processor]] = []
        for index, column in enumerate(self.statement.exported_columns):
            # The OID matters to numbers alone: does the driver send a float or a Decimal?
            oid = FLOAT8 if isinstance(column.type, Float) else NUMERIC
            if process := column.type.dialect_impl(DIALECT).result_processor(DIALECT, oid):
                processors.append((index, process))
        return processors


@dataclass(frozen=True, eq=False)
class Query(Statement[RowT_co]):
    """Changes nothing, so that it needs no transaction, may be asked twice, and on a replica."""

    statement: AnySelect


class Change(Statement[RowT_co]):
    """An INSERT, UPDATE or DELETE, or a SELECT from one."""


def _make(default: Any) -> Any:
    return default.arg(None) if default.is_callable else default.arg


def log_statement(sql: str, seconds: float, slow_seconds: float) -> None:
    if seconds > slow_seconds:
        log.warning("A statement took %(seconds).3f s: %(sql)s", {"seconds": seconds, "sql": sql})
    else:
        log.debug("%s", sql)
