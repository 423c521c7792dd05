"""Pages by keyset: "the rows after this one" instead of OFFSET, so that page 10,000 costs what page 1 costs.

See https://use-the-index-luke.com/no-offset.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_args, get_type_hints
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, TypeAdapter
from sqlalchemy import BigInteger, ColumnElement, Integer, Numeric, bindparam, func, select, true, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from plinth.database.cursors import Cursors
from plinth.database.query import AnySelect, Query, Readable
from plinth.errors import InvalidError

RowT = TypeVar("RowT", bound=NamedTuple)


def _utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside of the years 1 to 9999") from None


# A cursor comes from the client: its values must fit the column before PostgreSQL sees them.
CURSOR_TYPES: dict[Any, Any] = {
    int: Annotated[int, Field(ge=-(2**63), lt=2**63)],
    str: Annotated[str, Field(pattern=r"^[^\x00]*$")],
    Decimal: Annotated[Decimal, Field(max_digits=17, decimal_places=2)],
    datetime: Annotated[AwareDatetime, AfterValidator(_utc)],
    date: date,
    UUID: UUID,
}

_NOT_FILTERS = {"sort", "limit", "cursor", "total"}
_RESERVED = _NOT_FILTERS | {"cursor_id"}


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[RowT]):
    rows: list[RowT]
    next_cursor: str | None
    total: int | None  # None unless it was requested


class Keyset(Generic[RowT]):
    """A list that can be sorted, filtered and read page by page, each page in one statement.

    The keys of `sorts` and `filters` are the names that clients use. A sort is named after a field of `row`; "id" is
    among them and breaks ties. The condition of a filter has a bind parameter of the filter's name. Raises TypeError
    for a sort by a nullable column, whose rows would be lost, or by a type that a cursor cannot hold.
    """

    def __init__(
        self,
        name: str,
        row: type[RowT],
        statement: AnySelect,
        *,
        sorts: Mapping[str, InstrumentedAttribute[Any]],
        filters: Mapping[str, ColumnElement[bool]],
    ) -> None:
        self.name = name
        self._row = row
        self._statement = statement
        self._sorts = sorts
        self._filters = filters
        self._queries: dict[tuple[str, frozenset[str], bool], Query[Any]] = {}
        if taken := ", ".join(sorted(_RESERVED & filters.keys())):
            raise TypeError(f"{name} cannot have a filter named {taken}: give it another name.")
        types = get_type_hints(row)
        for field, column in sorts.items():
            if column.nullable:
                raise TypeError(f"{name} cannot be sorted by {field}: it may be NULL, and NULL is not after any value.")
            if types[field] not in CURSOR_TYPES:
                raise TypeError(f"{name} cannot be sorted by {field}: a cursor cannot hold a {types[field]}.")
        values = {field: _cursor_type(types[field], column) for field, column in sorts.items()}
        self._cursors: dict[str, TypeAdapter[tuple[str, str, Any, Any]]] = {
            sort: TypeAdapter(
                tuple[Literal[name], Literal[sort], values[field], values["id"]]  # type: ignore[valid-type]
            )
            for field in sorts
            for sort in (field, f"-{field}")
        }

    def orders(self) -> Iterator[tuple[str, InstrumentedAttribute[Any], Query[Any]]]:
        """Each sort order with its column, and the query of its first page."""
        for sort in self._cursors:
            yield sort, self._sorts[sort.removeprefix("-")], self._query(sort, frozenset(), False)

    def check(self, schema: type[BaseModel]) -> None:
        """Raise TypeError unless every filter and sort that a schema of query parameters declares is one of the list's.

        Call it where the schema and the list meet, at import: else the first request with the filter would fail.
        """
        sorts = {*get_args(schema.model_fields["sort"].annotation)}
        for kind, unknown in (
            ("filters", schema.model_fields.keys() - _NOT_FILTERS - self._filters.keys()),
            ("sorts", sorts - self._cursors.keys()),
        ):
            if unknown:
                names = ", ".join(sorted(unknown))
                raise TypeError(f"{schema.__name__} declares {kind} that {self.name} does not have: {names}.")

    def narrowed(self, statement: AnySelect, /, *, sort: str, **filters: Any) -> tuple[AnySelect, dict[str, Any]]:
        """Filter and sort another SELECT of the same tables as the pages are; and the parameters that it then has."""
        given = {name: value for name, value in filters.items() if value is not None}
        filtered = statement.where(*(self._filters[name] for name in sorted(given)))
        return filtered.order_by(*_order(sort, self._sorts[sort.removeprefix("-")], self._sorts["id"])), given

    async def page(
        self, db: Readable, /, *, sort: str, limit: int, cursor: str | None, total: bool, **filters: Any
    ) -> KeysetPage[RowT]:
        """The `limit` rows after `cursor`, by `sort` ("-" before it for descending); a filter of None is left out.

        Raises InvalidError for a cursor that is broken or was made for another list or sort.
        """
        given = {name: value for name, value in filters.items() if value is not None}
        if cursor is not None:
            given["cursor"], given["cursor_id"] = self._decode(db.cursors, sort, cursor)
        rows = await db.all(self._query(sort, frozenset(given), total), **given, limit=limit + 1)
        counted = rows[0][-1] if total else None
        rows = [self._row(*row[:-1]) for row in rows if row.id is not None] if total else rows
        more = len(rows) > limit
        rows = rows[:limit]
        return KeysetPage(rows, self._encode(db.cursors, sort, rows[-1]) if more else None, counted)

    def _encode(self, cursors: Cursors, sort: str, row: Any) -> str:
        values = (self.name, sort, getattr(row, sort.removeprefix("-")), row.id)
        return cursors.encode(self._cursors[sort].dump_json(values))

    def _decode(self, cursors: Cursors, sort: str, cursor: str) -> tuple[Any, Any]:
        try:
            _, _, value, id = self._cursors[sort].validate_json(cursors.decode(cursor))
        except ValueError as error:
            message = "This is not a cursor of this list in this order. Leave it out to start from the first page."
            raise InvalidError("cursor", message) from error
        return value, id

    def _query(self, sort: str, given: frozenset[str], total: bool) -> Query[Any]:
        key = sort, given, total
        if key not in self._queries:
            self._queries[key] = self._build_query(*key)
        return self._queries[key]

    def _build_query(self, sort: str, given: frozenset[str], total: bool) -> Query[Any]:
        field = sort.removeprefix("-")
        column, id = self._sorts[field], self._sorts["id"]
        filtered = self._statement.where(*(self._filters[name] for name in sorted(given - _RESERVED)))
        page = filtered.limit(bindparam("limit"))
        if "cursor" in given:
            after = tuple_(bindparam("cursor", type_=column.type), bindparam("cursor_id", type_=id.type))
            page = page.where(tuple_(column, id) < after if sort.startswith("-") else tuple_(column, id) > after)
        if not total:
            return Query(self._row, page.order_by(*_order(sort, column, id)))
        # The count is the left side of the join, so that there is a row even where the page is empty.
        label = "total"
        while label in self._row._fields:
            label += "_"
        count = filtered.with_only_columns(func.count().label(label), maintain_column_froms=True).subquery()
        rows = page.order_by(*_order(sort, column, id)).subquery()
        counted = select(*rows.c, count.c[label]).select_from(count.outerjoin(rows, true()))
        fields = [(column.key, Any) for column in counted.exported_columns]
        row: Any = NamedTuple(f"Counted{self._row.__name__}", fields)  # type: ignore[misc]
        return Query(row, counted.order_by(*_order(sort, rows.c[field], rows.c.id)))


def _cursor_type(kind: Any, column: InstrumentedAttribute[Any]) -> Any:
    match column.type:
        case Numeric() as numeric if kind is Decimal:
            return Annotated[Decimal, Field(max_digits=numeric.precision, decimal_places=numeric.scale)]
        case Integer() as integer if kind is int and not isinstance(integer, BigInteger):
            return Annotated[int, Field(ge=-(2**31), lt=2**31)]
    return CURSOR_TYPES[kind]


def _order(sort: str, *columns: ColumnElement[Any] | InstrumentedAttribute[Any]) -> list[ColumnElement[Any]]:
    return [column.desc() if sort.startswith("-") else column.asc() for column in columns]
