"""`Query`: a SELECT with the type of its rows, compiled once and run with any parameters.

SQLAlchemy's execution of a statement costs several times what PostgreSQL's does. `Reads` runs the compiled text on the
driver; a `Session` runs the statement itself, inside its transaction.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from inspect import signature
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import Float, Select, SelectBase, UpdateBase
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import iterate

from plinth.database.cursors import Cursors

RowT = TypeVar("RowT")
RowT_co = TypeVar("RowT_co", covariant=True)
AnySelect: TypeAlias = Select[*tuple[Any, ...]]
Processor: TypeAlias = Callable[[Any], Any]

FLOAT8, NUMERIC = 701, 1700
DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
_LOCKING = re.compile(r"\bFOR (NO KEY )?(UPDATE|(KEY )?SHARE)\b")


@dataclass(frozen=True, eq=False)
class Query(Generic[RowT_co]):
    """A SELECT with bind parameters, and the type of its rows.

    `row` is a NamedTuple or a dataclass whose fields have the names of the columns, in their order (trailing fields
    with defaults may be missing); or, for a single column, a type or function that is called with its value.
    With `custom_plan`, `Reads` has PostgreSQL plan each execution for its values, for three more round trips: for a
    condition that may fit few rows or nearly all of them, like that of a search. The plan of a prepared statement is
    otherwise kept after some executions, for all values (https://www.postgresql.org/docs/current/sql-prepare.html).
    Raises TypeError for columns that do not fit, and for statements that change something.
    """

    row: Callable[..., RowT_co]
    statement: AnySelect
    custom_plan: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.statement, SelectBase) or _changes_rows(self.statement):
            raise TypeError("A Query is a SELECT; execute INSERT, UPDATE and DELETE on the session.")
        columns = [str(column.key) for column in self.statement.exported_columns]
        names, required = _fields(self.row)
        if names is None:
            if len(columns) != 1:
                raise TypeError(f"A row of {len(columns)} columns needs a NamedTuple or a dataclass with their names.")
        elif columns != names[: len(columns)] or len(columns) < required:
            raise TypeError(f"The columns are {', '.join(columns)}; {self.row.__name__} has {', '.join(names)}.")

    @cached_property
    def locks(self) -> bool:
        """Whether it has a locking clause (FOR UPDATE, FOR SHARE), for which it needs a transaction."""
        return _LOCKING.search(self.sql) is not None

    @cached_property
    def sql(self) -> str:
        return str(self._compiled)

    def bind(self, given: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The text and the parameters in the order of the driver.

        Raises KeyError for a parameter that is missing, TypeError for one that the statement does not have.
        """
        if unknown := given.keys() - self._names:
            raise TypeError(f"The statement has no parameter {', '.join(sorted(unknown))}.")
        if missing := self._required - given.keys():
            raise KeyError(", ".join(sorted(missing)))
        if self._expands:
            return self._expand(given)
        return self.sql, [
            constant if name is None else process(given[name]) if process else given[name]
            for name, constant, process in self._parameters(given)
        ]

    def rows(self, records: Sequence[asyncpg.Record]) -> list[RowT_co]:
        """The records of the driver as rows, each column converted as its type says."""
        row, processors = self.row, self._processors
        rows = []
        for record in records:
            values = list(record)
            for column, process in processors:
                values[column] = process(values[column])
            rows.append(row(*values))
        return rows

    def _parameters(self, given: Mapping[str, Any]) -> Iterable[tuple[str | None, Any, Processor | None]]:
        if self._names == given.keys():
            return self._positions
        return [
            (None, self._defaults[name], None) if name is not None and name not in given else (name, constant, process)
            for name, constant, process in self._positions
        ]

    def _expand(self, given: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """`.in_()` has as many parameters as its list has members, so its text depends on them."""
        state = self._compiled.construct_expanded_state(dict(given))
        processors = {name: _bind_processor(each.type) for name, each in self._compiled.binds.items()}
        processors |= state.processors  # of the members of lists
        names = state.positiontup or ()
        return state.statement, [_processed(state.parameters[name], processors.get(name)) for name in names]

    @cached_property
    def _compiled(self) -> SQLCompiler:
        return self.statement.compile(dialect=DIALECT)

    @cached_property
    def _expands(self) -> bool:
        return any(parameter.expanding for parameter in self._compiled.binds.values())

    @cached_property
    def _names(self) -> set[str]:
        return {parameter.key for parameter in self._compiled.binds.values() if not parameter.unique}

    @cached_property
    def _required(self) -> set[str]:
        return {parameter.key for parameter in self._compiled.binds.values() if parameter.required}

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        """The values of parameters that have one, `bindparam("size", 20)`, as the driver takes them."""
        named = [each for each in self._compiled.binds.values() if not (each.required or each.unique)]
        return {each.key: _processed(each.effective_value, _bind_processor(each.type)) for each in named}

    @cached_property
    def _positions(self) -> list[tuple[str | None, Any, Processor | None]]:
        """For each position the name of its parameter and how a value goes to the driver; or None and a constant."""
        positions: list[tuple[str | None, Any, Processor | None]] = []
        for name in self._compiled.positiontup or ():
            parameter = self._compiled.binds[name]
            process = _bind_processor(parameter.type)
            if parameter.unique:
                positions.append((None, _processed(parameter.effective_value, process), None))
            else:
                positions.append((parameter.key, None, process))
        return positions

    @cached_property
    def _processors(self) -> list[tuple[int, Processor]]:
        """The positions of columns whose values the driver does not return as their type does, and the conversion."""
        processors: list[tuple[int, Processor]] = []
        for index, column in enumerate(self.statement.exported_columns):
            # The OID matters to numbers alone, which the driver may send as float or as Decimal.
            oid = FLOAT8 if isinstance(column.type, Float) else NUMERIC
            if process := column.type.dialect_impl(DIALECT).result_processor(DIALECT, oid):
                processors.append((index, process))
        return processors


class Readable(Protocol):
    """What runs queries: `Reads`, or the `Session` of a transaction."""

    cursors: Cursors

    async def all(self, query: Query[RowT], /, **parameters: Any) -> list[RowT]: ...

    async def first(self, query: Query[RowT], /, **parameters: Any) -> RowT | None: ...


def _changes_rows(statement: SelectBase) -> bool:
    """Whether a common table expression of the SELECT is an INSERT, UPDATE or DELETE."""
    return any(isinstance(element, UpdateBase) for element in iterate(statement))


def _fields(row: Any) -> tuple[list[str] | None, int]:
    """The names of a row's fields and how many of them have no default; None where it has no named fields."""
    is_named_tuple = isinstance(row, type) and issubclass(row, tuple) and hasattr(row, "_fields")
    if not (is_named_tuple or is_dataclass(row)):
        return None, 0
    parameters = signature(row).parameters.values()
    return [each.name for each in parameters], sum(each.default is each.empty for each in parameters)


def _bind_processor(type_: Any) -> Processor | None:
    process: Processor | None = type_.dialect_impl(DIALECT).bind_processor(DIALECT)
    return process


def _processed(value: Any, process: Processor | None) -> Any:
    return process(value) if process else value
