"""A Query on the driver reads what the ORM wrote, as the ORM reads it, for every type."""

from datetime import UTC, timedelta
from typing import Any, NamedTuple

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, insert, select

from plinth.database import Database, Query
from tests.plinth.database.tables import Colour, Everything

TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=10)
VALUES = {
    "amount": st.decimals(-(10**9), 10**9, places=2),
    "exact": st.decimals(-(10**9), 10**9, places=5),
    "approximate": st.floats(allow_nan=False),
    "flag": st.booleans(),
    "colour": st.sampled_from(Colour),
    "words": st.lists(TEXT, max_size=3),
    "document": st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT, max_size=3),
    "raw": st.binary(max_size=10),
    "key": st.uuids(),
    "happened_at": st.datetimes(timezones=st.just(UTC)).filter(lambda instant: 1 < instant.year < 9999),
    "day": st.dates(),
    "lasted": st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
}
COLUMNS = [getattr(Everything, name) for name in VALUES]
Row: Any = NamedTuple("Row", [(name, Any) for name in VALUES])  # type: ignore[misc]
EVERYTHING = Query(Row, select(*COLUMNS))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.fixed_dictionaries({name: st.none() | value for name, value in VALUES.items()}))
async def test_a_row_is_what_the_orm_makes_of_it(
    database: Database, onlooker: asyncpg.Connection, row: dict[str, Any]
) -> None:
    await onlooker.execute("DELETE FROM everything")
    async with database.sessions.begin() as session:
        await session.execute(insert(Everything).values(**row))
        loaded = tuple((await session.execute(select(*COLUMNS))).one())
        inside = await session.first(EVERYTHING)
    read = await database.reads.first(EVERYTHING)
    assert read == inside == loaded == tuple(row[name] for name in VALUES)
    assert [*map(type, read)] == [*map(type, loaded)]
    assert [*map(str, read)] == [*map(str, loaded)]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.fixed_dictionaries({name: value for name, value in VALUES.items() if name != "document"}))
async def test_a_parameter_goes_as_the_orm_sends_it(
    database: Database, onlooker: asyncpg.Connection, row: dict[str, Any]
) -> None:
    await onlooker.execute("DELETE FROM everything")
    async with database.sessions.begin() as session:
        await session.execute(insert(Everything).values(**row))
    same = [getattr(Everything, name) == bindparam(name) for name in row]
    assert await database.reads.first(Query(int, select(Everything.id).where(*same)), **row) is not None


def test_the_types_are_all_there_are() -> None:
    assert {column.name for column in Everything.__table__.c} == {"id", *VALUES}
