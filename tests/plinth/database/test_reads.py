import asyncio
from typing import NamedTuple

import asyncpg
import pytest
from sqlalchemy import Integer, Text, bindparam, column, func, insert, literal, select, table, text
from sqlalchemy.engine import make_url

from plinth.database import Database, Query, open_database
from plinth.database.connections import READ_ONLY
from plinth.errors import UnavailableError
from plinth.settings import Settings
from plinth.testing.wire import WirePostgres
from tests.plinth.database.tables import Thing, ThingRow


class Plans(NamedTuple):
    generic_plans: int
    custom_plans: int


THINGS = Query(ThingRow, select(Thing.id, Thing.label, Thing.amount, Thing.made_at).order_by(Thing.id))
BY_LABEL = Query(ThingRow, THINGS.statement.where(Thing.label == bindparam("label")))
BACKEND = Query(int, select(func.pg_backend_pid()))
SLEEP = Query(str, select(func.pg_sleep(bindparam("seconds"))))


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.sessions.begin() as session:
        await session.execute(insert(Thing), [{"label": "one"}, {"label": "two"}])
    return database


async def test_rows_have_their_type(filled: Database) -> None:
    rows = await filled.reads.all(THINGS)
    assert [type(row) for row in rows] == [ThingRow, ThingRow]
    assert [row.label for row in rows] == ["one", "two"]


async def test_first_is_a_row_or_none(filled: Database) -> None:
    row = await filled.reads.first(BY_LABEL, label="two")
    assert row is not None
    assert row.id == 2
    assert await filled.reads.first(BY_LABEL, label="three") is None


async def test_a_read_is_one_round_trip(settings: Settings, things: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a pooler that ignores the startup parameter it is three, with BEGIN READ ONLY and COMMIT."""
    monkeypatch.setattr("plinth.database.pulse.LOOK_SECONDS", 3600.0)  # a ping would be counted, too
    server = make_url(settings.database.url.get_secret_value())
    direct = server.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(direct, server_settings=READ_ONLY)
    is_read_only = await connection.fetchval("SHOW default_transaction_read_only") == "on"
    await connection.close()
    async with WirePostgres(server.host or "", server.port or 5432) as wire:
        through = settings.database.model_copy(update={"url": wire.through(settings.database.url)})
        async with open_database(through, "wired") as database:
            await database.reads.all(THINGS)
            with wire.counting() as count:
                await database.reads.all(THINGS)
            assert count.round_trips == (1 if is_read_only else 3)


async def test_a_statement_that_takes_long_is_counted_as_any_other(settings: Settings, wire: WirePostgres) -> None:
    """While one takes long, the server is pinged on another connection: not where counts are compared."""
    through = settings.database.model_copy(update={"url": wire.through(settings.database.url)})
    async with open_database(through, "wired") as database:
        await database.ping()  # opens that connection
        await database.reads.first(SLEEP, seconds=0.0)
        with wire.counting() as count:
            await database.reads.first(SLEEP, seconds=1.0)
        assert len(count.statements) <= 3  # with BEGIN and COMMIT behind a pooler
        assert "SELECT 1" not in count.statements


async def test_a_read_holds_no_connection_afterwards(settings: Settings, things: None) -> None:
    narrow = settings.database.model_copy(update={"read_pool_size": 1, "pool_timeout_seconds": 5.0})
    async with open_database(narrow, "narrow") as database:
        backends = [await database.reads.first(BACKEND) for _ in range(3)]
        assert len(set(backends)) == 1


async def test_reads_may_be_gathered(database: Database) -> None:
    backends = await asyncio.gather(*(database.reads.first(BACKEND) for _ in range(20)))
    assert len(backends) == 20


async def test_a_connection_is_made_in_the_time_for_that_and_waited_for_in_another(settings: Settings) -> None:
    narrow = settings.database.model_copy(update={"read_pool_size": 1, "pool_timeout_seconds": 1e-6})
    async with open_database(narrow, "narrow") as database:
        reads = await asyncio.gather(*(database.reads.first(BACKEND) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in reads] == [int, UnavailableError, UnavailableError]
    async with open_database(narrow.for_jobs, "narrow") as database:
        assert len({*await asyncio.gather(*(database.reads.first(BACKEND) for _ in range(3)))}) == 1


async def test_a_read_whose_connection_was_lost_is_retried(
    settings: Settings, things: None, onlooker: asyncpg.Connection
) -> None:
    async with open_database(settings.database.model_copy(update={"read_pool_size": 1}), "cut") as database:
        # A retried read sleeps twice, the second time on a connection that stays open.
        reading = asyncio.create_task(database.reads.first(SLEEP, seconds=0.3))
        victim = None
        while victim is None:
            victim = await onlooker.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'cut' AND wait_event = 'PgSleep'"
            )
        assert await onlooker.fetchval("SELECT pg_terminate_backend($1, 5000)", victim)
        await reading
        assert await database.reads.first(BACKEND) != victim


async def test_a_cancelled_read_returns_its_connection(
    settings: Settings, things: None, onlooker: asyncpg.Connection
) -> None:
    narrow = settings.database.model_copy(update={"read_pool_size": 1})
    async with open_database(narrow, "cancelled-read") as database:
        reading = asyncio.create_task(database.reads.first(SLEEP, seconds=30))
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event = 'PgSleep'"
        while not await onlooker.fetchval(query, "cancelled-read"):
            pass
        reading.cancel()
        await asyncio.wait([reading])
        assert await database.reads.first(Query(int, select(literal(1, Integer)))) == 1


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("startup_parameter", [True, False], ids=["a server", "a pooler that ignores it"])
async def test_a_function_that_writes_is_refused(
    settings: Settings, filled: Database, monkeypatch: pytest.MonkeyPatch, prepared: bool, startup_parameter: bool
) -> None:
    if not startup_parameter:
        monkeypatch.setattr("plinth.database.reads.READ_ONLY", {})
    writing = Query(int, select(func.nextval("things_id_seq")))
    changed = settings.database.model_copy(update={"prepared_statements": prepared})
    async with open_database(changed, "reading") as database:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await database.reads.first(writing)
        assert [row.id for row in await database.reads.all(THINGS)] == [1, 2]
    async with filled.sessions.begin() as session:
        assert await session.first(writing) == 3


async def test_a_slow_read_is_cancelled(settings: Settings, things: None) -> None:
    impatient = settings.database.model_copy(update={"statement_timeout_seconds": 0.05})
    async with open_database(impatient, "impatient") as database:
        with pytest.raises(UnavailableError, match="too long"):
            await database.reads.first(SLEEP, seconds=30)


async def test_reads_are_counted_and_slow_ones_logged_with_their_sql(
    settings: Settings, things: None, caplog: pytest.LogCaptureFixture
) -> None:
    fast, slow = (settings.database.model_copy(update={"slow_statement_seconds": each}) for each in (60, 0.05))
    async with open_database(fast, "fast") as database:
        await database.reads.first(SLEEP, seconds=0.06)
        assert "took" not in caplog.text
    async with open_database(slow, "slow") as database:
        await database.reads.first(BACKEND)
        await database.reads.first(SLEEP, seconds=0.06)
        assert "took 0." in caplog.text
        assert "pg_sleep" in caplog.text
        assert database.reads.statements == 2


async def test_a_read_outlives_a_change_of_its_table(filled: Database, onlooker: asyncpg.Connection) -> None:
    before = await filled.reads.all(THINGS)
    await onlooker.execute("ALTER TABLE things ADD COLUMN more int DEFAULT 7, ALTER COLUMN label TYPE varchar(50)")
    try:
        assert await filled.reads.all(THINGS) == before
    finally:
        await onlooker.execute("ALTER TABLE things DROP COLUMN more, ALTER COLUMN label TYPE varchar")
    assert await filled.reads.all(THINGS) == before


async def test_a_parameter_that_is_missing_is_an_error(database: Database) -> None:
    with pytest.raises(KeyError, match="label"):
        await database.reads.first(BY_LABEL)


async def test_a_mistake_in_a_statement_is_not_hidden(database: Database) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await database.reads.first(Query(int, select(literal(1) / func.length(""))))
    await database.ping()


async def test_without_prepared_statements_nothing_is_left_on_the_server(settings: Settings, things: None) -> None:
    """So that PgBouncer may give each transaction another server."""
    named = "SELECT count(*) FROM pg_prepared_statements"
    for prepared, expected in ((True, 2), (False, 0)):
        bounced = settings.database.model_copy(update={"prepared_statements": prepared, "read_pool_size": 1})
        async with open_database(bounced, "bounced") as database:
            await database.reads.first(BACKEND)
            count = Query(int, select(func.count()).select_from(text("pg_prepared_statements")))
            assert await database.reads.first(count) == expected
            async with database.sessions.begin() as session:
                await session.execute(insert(Thing).values(label=f"prepared {prepared}"))
                assert (await session.scalar(text(named)) > 0) == prepared


@pytest.mark.parametrize("custom_plan", [True, False])
async def test_a_query_with_custom_plans_is_planned_for_its_values_each_time(
    settings: Settings, things: None, custom_plan: bool
) -> None:
    """PostgreSQL would plan it for any value, after five executions, if that seems to cost no more."""
    labels = Query(str, select(Thing.label).where(Thing.label == bindparam("label")), custom_plan=custom_plan)
    statement = column("statement", Text)
    columns = column("generic_plans", Integer), column("custom_plans", Integer)
    prepared = select(*columns).select_from(table("pg_prepared_statements"))
    plans = Query(Plans, prepared.where(statement.contains("things.label =")))
    one = settings.database.model_copy(update={"read_pool_size": 1})
    async with open_database(one, "tests") as database:
        for number in range(12):
            await database.reads.all(labels, label=str(number))
        [counted] = await database.reads.all(plans)
    assert (counted.generic_plans > 0, counted.custom_plans == 12) == (not custom_plan, custom_plan)
