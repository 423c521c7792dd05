"""Pages by keyset: "the rows after this one" instead of OFFSET, so that page 10,000 costs what page 1 costs.

See https://use-the-index-luke.com/no-offset.
"""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_type_hints

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter
from sqlalchemy import ColumnElement, bindparam, func, select, true, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from plinth.database.reads import Reads
from plinth.database.statements import AnySelect, Query
from plinth.errors import InvalidError

RowT = TypeVar("RowT", bound=NamedTuple)


def _utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside of the years 1 to 9999") from None


# A cursor comes from outside: what it holds must fit the column before PostgreSQL sees it.
BIGINT = Annotated[int, Field(ge=-(2**63), lt=2**63)]
CURSOR_TYPES = {
    int: BIGINT,
    str: Annotated[str, Field(pattern=r"^[^\x00]*$")],
    Decimal: Annotated[Decimal, Field(max_digits=17, decimal_places=2)],
    datetime: Annotated[AwareDatetime, AfterValidator(_utc)],
}


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[RowT]):
    rows: list[RowT]
    next_cursor: str | None
    total: int | None  # None unless asked for


class Keyset(Generic[RowT]):
    """A list that can be sorted, filtered and read page by page, each page in one statement.

    `sorts` and `filters` go by the names that callers use. A sort's name is that of a field of `row`, "id" among
    them, which breaks ties; a filter's condition has a bind parameter of the filter's name.
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
        self._row = row
        self._statement = statement
        self._sorts = sorts
        self._filters = filters
        self._queries: dict[tuple[str, frozenset[str], bool], Query[Any]] = {}
        types = get_type_hints(row)
        self._cursors: dict[str, TypeAdapter[tuple[str, str, Any, int]]] = {
            sort: TypeAdapter(tuple[Literal[name], Literal[sort], CURSOR_TYPES[types[field]], BIGINT])  # type: ignore[valid-type]
            for field in sorts
            for sort in (field, f"-{field}")
        }
        self._name = name

    async def page(
        self, reads: Reads, *, sort: str, limit: int, cursor: str | None, total: bool, **filters: Any
    ) -> KeysetPage[RowT]:
        """The `limit` rows after `cursor`, by `sort` ("-" before it for descending); filters that are None don't count.

        Raises InvalidError for a cursor that is broken or was made for another list or sort.
        """
        given = {name: value for name, value in filters.items() if value is not None}
        if cursor is not None:
            given["after"], given["after_id"] = self._decode(sort, cursor)
        rows = await reads.all(self._query(sort, frozenset(given), total), **given, limit=limit + 1)
        counted = rows[0][-1] if total else None
        rows = [self._row(*row[:-1]) for row in rows if row[0] is not None] if total else rows
        more = len(rows) > limit
        rows = rows[:limit]
        return KeysetPage(rows, self._encode(sort, rows[-1]) if more else None, counted)

    def _encode(self, sort: str, row: RowT) -> str:
        values = (self._name, sort, getattr(row, sort.removeprefix("-")), row.id)  # type: ignore[attr-defined]
        return urlsafe_b64encode(self._cursors[sort].dump_json(values)).rstrip(b"=").decode()

    def _decode(self, sort: str, cursor: str) -> tuple[Any, int]:
        try:
            data = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            _, _, value, id = self._cursors[sort].validate_json(data)
        except ValueError as error:
            message = "This is not a cursor of this list in this order; leave it out to start from the first page."
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
        filtered = self._statement.where(*(self._filters[name] for name in sorted(given - {"after", "after_id"})))
        page = filtered.limit(bindparam("limit"))
        if "after" in given:
            here, after = tuple_(column, id), tuple_(bindparam("after", type_=column.type), bindparam("after_id"))
            page = page.where(here < after if sort.startswith("-") else here > after)
        if not total:
            return Query(self._row, page.order_by(*_order(sort, column, id)))
        # The count stands on the left, so that it arrives even where the page is empty.
        count = filtered.with_only_columns(func.count().label("total"), maintain_column_froms=True).subquery()
        rows = page.order_by(*_order(sort, column, id)).subquery()
        counted = select(*rows.c, count.c.total).select_from(count.outerjoin(rows, true()))
        return Query(_as_tuple, counted.order_by(*_order(sort, rows.c[field], rows.c.id)))


def _order(sort: str, *columns: ColumnElement[Any] | InstrumentedAttribute[Any]) -> list[ColumnElement[Any]]:
    return [column.desc() if sort.startswith("-") else column.asc() for column in columns]


def _as_tuple(*columns: Any) -> tuple[Any, ...]:
    return columns
