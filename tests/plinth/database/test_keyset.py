import json
from base64 import urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import bindparam, func, insert, select

from plinth.database import Database, Keyset, KeysetPage
from plinth.database.cursors import Cursors
from plinth.errors import InvalidError
from tests.plinth.database.tables import Event, Thing, ThingRow

COLUMNS = select(Thing.id, Thing.label, Thing.amount, Thing.made_at)
PAGES = Keyset(
    "things",
    ThingRow,
    COLUMNS,
    sorts={"id": Thing.id, "label": Thing.label, "amount": Thing.amount, "made_at": Thing.made_at},
    filters={"least": Thing.amount >= bindparam("least"), "starts": func.starts_with(Thing.label, bindparam("starts"))},
)
encoded = Cursors().encode
OTHERS = Keyset("others", ThingRow, COLUMNS, sorts={"id": Thing.id, "label": Thing.label}, filters={})
SORTS = ["id", "-id", "label", "-label", "amount", "-amount", "made_at", "-made_at"]


async def page(database: Database, pages: Keyset[ThingRow] = PAGES, **query: Any) -> KeysetPage[ThingRow]:
    return await pages.page(database.reads, **{"sort": "id", "limit": 3, "cursor": None, "total": False, **query})


async def walk(database: Database, **query: Any) -> list[ThingRow]:
    rows: list[ThingRow] = []
    cursor: str | None = None
    while True:
        found = await page(database, cursor=cursor, **query)
        rows += found.rows
        cursor = found.next_cursor
        if cursor is None:
            return rows


@pytest.fixture
async def filled(database: Database) -> Database:
    """Ten things; labels and amounts in orders of their own, amounts and instants with ties."""
    rows = [
        {
            "label": f"{'ab'[number % 2]}{9 - number} 'é\"",
            "amount": Decimal(number % 3),
            "made_at": datetime(2026, 1, 1 + number // 4, tzinfo=UTC),
        }
        for number in range(10)
    ]
    async with database.sessions.begin() as session:
        await session.execute(insert(Thing), rows)
    return database


@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11])
@pytest.mark.parametrize("sort", SORTS)
async def test_pages_hold_every_row_once_in_order(filled: Database, sort: str, limit: int) -> None:
    rows = await walk(filled, sort=sort, limit=limit)
    field = sort.removeprefix("-")
    expected = sorted(rows, key=lambda row: (getattr(row, field), row.id), reverse=sort.startswith("-"))
    assert rows == expected
    assert len({row.id for row in rows}) == 10


@pytest.mark.parametrize("filters", [{"least": Decimal(1)}, {"starts": "a"}, {"least": Decimal(2), "starts": "b"}])
@pytest.mark.parametrize("sort", SORTS)
async def test_filters_hold_on_every_page(filled: Database, sort: str, filters: dict[str, Any]) -> None:
    rows = await walk(filled, sort=sort, limit=2, **filters)
    everything = await walk(filled, sort=sort)
    assert rows == [
        row
        for row in everything
        if row.amount >= filters.get("least", 0) and row.label.startswith(filters.get("starts", ""))
    ]


async def test_rows_that_come_and_go_meanwhile_shift_nothing(filled: Database, onlooker: asyncpg.Connection) -> None:
    first = await page(filled, sort="-id")
    await onlooker.execute("DELETE FROM things WHERE id = 8; INSERT INTO things (label) VALUES ('new')")
    second = await page(filled, sort="-id", cursor=first.next_cursor)
    assert [row.id for row in first.rows + second.rows] == [10, 9, 8, 7, 6, 5]


@pytest.mark.parametrize("sort", SORTS)
async def test_whatever_is_written_between_two_pages_no_row_that_stays_is_repeated_or_skipped(
    filled: Database, onlooker: asyncpg.Connection, sort: str
) -> None:
    """Of the ten rows, three are deleted on the way; between each two pages, rows come before and after the cursor."""
    stays = {row.id for row in await walk(filled)} - {2, 5, 8}
    seen: list[int] = []
    cursor: str | None = None
    for number in range(100):
        found = await page(filled, sort=sort, limit=2, cursor=cursor)
        seen += [row.id for row in found.rows]
        cursor = found.next_cursor
        if cursor is None:
            break
        await onlooker.execute("DELETE FROM things WHERE id = $1", 2 + 3 * (number % 3))
        if number < 10:
            await onlooker.execute(
                "INSERT INTO things (label, amount, made_at)"
                " SELECT chr(96 + i) || $1::int, $1 % 3 * 100, '2026-01-01'::timestamptz + i * interval '1 day'"
                " FROM generate_series(0, 3) AS i",
                number,
            )
    assert cursor is None
    assert len(seen) == len(set(seen))
    assert stays <= set(seen)


@pytest.mark.parametrize("sort", ["id", "-label"])
async def test_a_page_reads_as_much_however_far_from_the_first(
    database: Database, onlooker: asyncpg.Connection, sort: str
) -> None:
    """In blocks of 8 KiB, as PostgreSQL counts them: with OFFSET it would read every row before."""
    await onlooker.execute(
        "INSERT INTO things (label) SELECT 'x' || lpad(i::text, 5, '0') FROM generate_series(1, 20000) i"
    )
    await onlooker.execute("VACUUM ANALYZE things")
    query = PAGES._query(sort, frozenset({"cursor", "cursor_id"}), False)
    blocks = []
    for place in (20, 10_000, 19_900):
        number = place if sort == "id" else 20_000 - place
        value = number if sort == "id" else f"x{number:05}"
        sql, arguments = query.bind({"cursor": value, "cursor_id": number, "limit": 20})
        [[explained]] = await onlooker.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
        plan = json.loads(explained)[0]["Plan"]
        assert plan["Actual Rows"] == 20
        blocks.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert max(blocks) <= min(blocks) + 20 < 60, blocks


async def test_the_total_is_counted_only_on_request(filled: Database) -> None:
    assert (await page(filled)).total is None
    assert (await page(filled, total=True)).total == 10
    assert (await page(filled, total=True, least=Decimal(1))).total == 6


async def test_a_page_with_total_holds_what_it_holds_without(filled: Database) -> None:
    for sort in SORTS:
        first = await page(filled, sort=sort)
        counted = await page(filled, sort=sort, total=True)
        assert (counted.rows, counted.next_cursor) == (first.rows, first.next_cursor)
        second = await page(filled, sort=sort, cursor=first.next_cursor)
        counted = await page(filled, sort=sort, cursor=first.next_cursor, total=True)
        assert (counted.rows, counted.total) == (second.rows, 10)


async def test_the_total_is_known_on_an_empty_page(filled: Database, onlooker: asyncpg.Connection) -> None:
    first = await page(filled, limit=9)
    await onlooker.execute("DELETE FROM things WHERE id = 10")
    last = await page(filled, cursor=first.next_cursor, total=True)
    assert (last.rows, last.total, last.next_cursor) == ([], 9, None)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "nonsense",
        "!!!!",
        "ümlaut",
        "W10",
        encoded(b'["things","id"]'),
        encoded(b'["things","id","x",1]'),
        encoded(b'["things","id",1,%d]' % 10**30),
        encoded(b'["things","id",%d,1]' % 10**30),
        encoded(b'["others","id",1,1]'),
        encoded(b"[" * 100_000),
        encoded(b"\xff\xfe"),
    ],
)
async def test_a_broken_cursor_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidError, match="not a cursor of this list") as refused:
        await page(database, cursor=cursor)
    assert refused.value.field == "cursor"


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("label", '"\\u0000"'),
        ("label", '"\\ud800"'),
        ("label", "1"),
        ("amount", '"1e400"'),
        ("amount", '"NaN"'),
        ("amount", '"1.001"'),
        ("made_at", '"2026-01-01T00:00:00"'),
        ("made_at", '"-infinity"'),
    ],
)
async def test_a_cursor_that_holds_what_the_column_cannot_is_refused(database: Database, sort: str, value: str) -> None:
    cursor = encoded(f'["things","{sort}",{value},1]'.encode())
    with pytest.raises(InvalidError, match="not a cursor of this list"):
        await page(database, sort=sort, cursor=cursor)


async def test_a_cursor_of_another_list_or_order_is_refused(filled: Database) -> None:
    cursor = (await page(filled, sort="label")).next_cursor
    assert (await page(filled, sort="label", cursor=cursor)).rows
    for pages, sort in ((OTHERS, "label"), (PAGES, "-label"), (PAGES, "id")):
        with pytest.raises(InvalidError, match="not a cursor of this list"):
            await page(filled, pages, sort=sort, cursor=cursor)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(),
    "label": st.text(),
    "amount": st.decimals().map(str) | st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
    "made_at": st.datetimes(timezones=st.timezones()).map(str)
    | st.sampled_from(["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "infinity"]),
}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sorted_value=st.sampled_from(SORTS).flatmap(lambda sort: st.tuples(st.just(sort), VALUES[sort.removeprefix("-")])),
    id=st.integers(),
)
async def test_no_well_made_cursor_makes_the_database_fail(
    database: Database, sorted_value: tuple[str, Any], id: int
) -> None:
    sort, value = sorted_value
    cursor = encoded(json.dumps(["things", sort, value, id]).encode())
    with suppress(InvalidError):
        await page(database, sort=sort, cursor=cursor)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sort=st.sampled_from(SORTS), junk=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
async def test_no_cursor_makes_the_database_fail(database: Database, sort: str, junk: bytes) -> None:
    for cursor in (encoded(junk), urlsafe_b64encode(junk).decode(), junk.decode("latin-1")):
        with pytest.raises(InvalidError):
            await page(database, sort=sort, cursor=cursor)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.sets(
        st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20), max_size=8
    ),
    limit=st.integers(1, 4),
    sort=st.sampled_from(["label", "-label"]),
)
async def test_whatever_the_text_a_cursor_leads_on(
    database: Database, onlooker: asyncpg.Connection, labels: set[str], limit: int, sort: str
) -> None:
    await onlooker.execute("TRUNCATE things")
    await onlooker.executemany("INSERT INTO things (label) VALUES ($1)", [(label,) for label in labels])
    rows = await walk(database, sort=sort, limit=limit)
    assert sorted(row.label for row in rows) == sorted(labels)


class EventRow(NamedTuple):
    id: UUID
    day: date
    note: str | None = None


EVENTS = Keyset("events", EventRow, select(Event.id, Event.day), sorts={"id": Event.id, "day": Event.day}, filters={})


@pytest.mark.parametrize("sort", ["id", "-id", "day", "-day"])
async def test_dates_and_uuids_are_keys(database: Database, sort: str) -> None:
    async with database.sessions.begin() as session:
        session.add_all(Event(day=date(2026, 1, 1 + number // 3)) for number in range(10))
    rows: list[EventRow] = []
    cursor: str | None = None
    while not rows or cursor:
        found = await EVENTS.page(database.reads, sort=sort, limit=3, cursor=cursor, total=False)
        rows, cursor = rows + found.rows, found.next_cursor
    field = sort.removeprefix("-")
    assert len(rows) == 10
    assert rows == sorted(rows, key=lambda row: (getattr(row, field), row.id), reverse=sort.startswith("-"))


class RatedRow(NamedTuple):
    id: UUID
    rank: int
    rate: Decimal


RATED = Keyset(
    "rated",
    RatedRow,
    select(Event.id, Event.rank, Event.rate),
    sorts={"id": Event.id, "rank": Event.rank, "rate": Event.rate},
    filters={},
)


@pytest.mark.parametrize("sort", ["rank", "-rank", "rate", "-rate"])
async def test_integers_of_32_bits_and_decimals_with_more_places_are_keys(database: Database, sort: str) -> None:
    async with database.sessions.begin() as session:
        session.add_all(
            Event(day=date(2026, 1, 1), rank=(number - 5) * 400_000_000, rate=Decimal(number).scaleb(-4))
            for number in range(10)
        )
    rows: list[RatedRow] = []
    cursor: str | None = None
    while not rows or cursor:
        found = await RATED.page(database.reads, sort=sort, limit=3, cursor=cursor, total=False)
        rows, cursor = rows + found.rows, found.next_cursor
    assert len(rows) == 10
    assert rows == sorted(rows, key=lambda row: row[1:], reverse=sort.startswith("-"))


@pytest.mark.parametrize(
    ("sort", "value"), [("rank", 2**31), ("rank", -(2**31) - 1), ("rate", "0.00001"), ("rate", "100")]
)
async def test_a_cursor_that_its_column_cannot_hold_is_refused(database: Database, sort: str, value: object) -> None:
    made = encoded(json.dumps(["rated", sort, value, str(UUID(int=0))]).encode())
    with pytest.raises(InvalidError, match="not a cursor of this list"):
        await RATED.page(database.reads, sort=sort, limit=3, cursor=made, total=False)


def test_a_sort_that_would_lose_rows_is_refused() -> None:
    columns = select(Event.id, Event.day, Event.note)
    with pytest.raises(TypeError, match="events cannot be sorted by note: it may be NULL"):
        Keyset("events", EventRow, columns, sorts={"id": Event.id, "note": Event.note}, filters={})


def test_a_sort_by_a_type_that_a_cursor_cannot_hold_is_refused() -> None:
    class Row(NamedTuple):
        id: UUID
        day: bytes

    with pytest.raises(TypeError, match="a cursor cannot hold"):
        Keyset("events", Row, select(Event.id, Event.day), sorts={"id": Event.id, "day": Event.day}, filters={})


class ThingQuery(BaseModel):
    sort: Literal["id", "-id", "label"] = "id"
    limit: int = 20
    cursor: str | None = None
    total: bool = False
    least: Decimal | None = None


def test_a_schema_that_fits_the_list_is_accepted() -> None:
    PAGES.check(ThingQuery)


def test_a_filter_that_the_list_does_not_have_is_refused_at_start() -> None:
    class WithFilter(ThingQuery):
        colour: str | None = None

    class WithSort(ThingQuery):
        sort: Literal["id", "late"] = "id"  # type: ignore[assignment]

    with pytest.raises(TypeError, match="declares filters that things does not have: colour"):
        PAGES.check(WithFilter)
    with pytest.raises(TypeError, match="declares sorts that things does not have: late"):
        PAGES.check(WithSort)


NAMES = ["total", "total_", "count", "index", "limit", "sort", "cursor", "cursor_id", "after", "after_id", "db", "self"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_column_may_have_any_name(filled: Database, name: str) -> None:
    """Also one that the list has for something of its own."""
    row: Any = NamedTuple("Row", [("id", int), (name, Decimal)])  # type: ignore[misc]
    named = select(Thing.id, Thing.amount.label(name))
    pages: Any = Keyset("named", row, named, sorts={"id": Thing.id, name: Thing.amount}, filters={})
    expected = sorted(await walk(filled), key=lambda thing: (thing.amount, thing.id))
    found: list[Any] = []
    cursor = None
    while cursor is not None or not found:
        counted = await page(filled, pages, sort=name, cursor=cursor, total=True)
        assert counted.total == 10
        found += counted.rows
        cursor = counted.next_cursor
    assert found == [(thing.id, thing.amount) for thing in expected]


@pytest.mark.parametrize("name", NAMES)
async def test_a_filter_is_applied_whatever_its_name_or_refused(filled: Database, name: str) -> None:
    filters = {name: Thing.amount >= bindparam(name)}
    if name in {"total", "limit", "sort", "cursor", "cursor_id"}:
        with pytest.raises(TypeError, match=f"^named cannot have a filter named {name}: give it another name"):
            Keyset("named", ThingRow, COLUMNS, sorts={"id": Thing.id}, filters=filters)
        return
    pages = Keyset("named", ThingRow, COLUMNS, sorts={"id": Thing.id}, filters=filters)
    query: dict[str, Any] = {"sort": "id", "limit": 2, "total": True, name: Decimal(1)}
    first = await pages.page(filled.reads, cursor=None, **query)
    second = await pages.page(filled.reads, cursor=first.next_cursor, **query)
    found = first.rows + second.rows
    assert first.total == second.total == 6
    assert len({thing.id for thing in found}) == 4
    assert all(thing.amount >= 1 for thing in found)
