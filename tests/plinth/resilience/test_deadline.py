"""Deadlines, and what they leave behind in the database: nothing."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import Text, cast, func, insert, literal, select

from plinth.database import Database, Query, open_database
from plinth.errors import DeadlineError
from plinth.resilience import deadline, remaining
from plinth.resilience.deadline import lift
from plinth.settings import Settings
from plinth.testing.wire import WirePostgres
from tests.plinth.database.conftest import tables, things
from tests.plinth.database.tables import Thing

__all__ = ["tables", "things"]

SLEEP = select(func.pg_sleep(60))
OURS = "FROM pg_stat_activity WHERE application_name = 'deadlines'"
SLEEPING = f"SELECT count(*) {OURS} AND state <> 'idle' AND query LIKE '%pg_sleep%'"
IN_TRANSACTION = f"SELECT count(*) {OURS} AND xact_start IS NOT NULL"
SLEEP_READ = Query(str, select(cast(func.pg_sleep(60), Text)))
ONE = Query(int, select(literal(1)))
AGES = 10 * 60.0


@pytest.fixture
async def database(settings: Settings, things: None) -> AsyncIterator[Database]:
    one_each = settings.database.model_copy(
        update={"pool_size": 1, "read_pool_size": 1, "pool_timeout_seconds": AGES, "statement_timeout_seconds": AGES}
    )
    async with open_database(one_each, "deadlines") as database:
        yield database


async def expire() -> None:
    await asyncio.get_running_loop().create_future()


async def labels(onlooker: asyncpg.Connection) -> list[str]:
    return [row["label"] for row in await onlooker.fetch("SELECT label FROM things ORDER BY id")]


async def none_of(onlooker: asyncpg.Connection, count: str) -> None:
    """Wait until there are none. A cancel request is answered before it is carried out."""
    async with asyncio.timeout(30):
        while await onlooker.fetchval(count):
            await onlooker.execute("SELECT pg_sleep(0.01)")


async def test_what_takes_too_long_is_a_deadline_error() -> None:
    with pytest.raises(DeadlineError, match="longer than is allowed"):
        async with deadline(0.01):
            await expire()
    assert remaining() is None


async def test_a_deadline_that_is_not_reached_changes_nothing() -> None:
    async with deadline(AGES):
        left = remaining()
        assert left is not None
        assert AGES - 60 < left < AGES + 1  # it is rounded
    assert remaining() is None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_nested_deadline_only_shortens() -> None:
    async with deadline(AGES):
        async with deadline(2 * AGES):
            assert (remaining() or 0) < AGES + 1
        with pytest.raises(DeadlineError):
            async with deadline(0.01):
                await expire()
        assert (remaining() or 0) > 1
    with pytest.raises(DeadlineError):
        async with deadline(0.01), deadline(AGES):
            await expire()


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def work() -> None:
        async with deadline(AGES):
            await expire()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_other_errors_stay_what_they_are() -> None:
    for error in (LookupError(), TimeoutError()):
        with pytest.raises(type(error)) as raised:
            async with deadline(AGES):
                raise error
        assert raised.value is error


async def test_what_a_cancellation_is_turned_into_is_the_cause() -> None:
    with pytest.raises(DeadlineError) as raised:
        async with deadline(0.01):
            try:
                await expire()
            except asyncio.CancelledError:
                raise LookupError from None
    assert isinstance(raised.value.__cause__, LookupError)


async def test_a_lifted_deadline_does_not_interrupt() -> None:
    reached = False
    async with deadline(0.01), deadline(0.02):
        lift()
        assert remaining() is None
        await asyncio.sleep(0.05)
        reached = True
    assert reached


async def test_a_deadline_that_has_passed_cannot_be_lifted() -> None:
    with pytest.raises(DeadlineError):
        async with deadline(0):
            try:
                await expire()
            except asyncio.CancelledError:
                lift()


async def test_a_task_that_outlives_the_block_has_no_deadline() -> None:
    ended = asyncio.Event()

    async def work() -> float | None:
        assert remaining() is not None
        await ended.wait()
        lift()
        return remaining()

    async with deadline(AGES):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    ended.set()
    assert await task is None


async def test_fifty_reads_in_a_row_leave_the_only_connection_free(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    assert await database.reads.first(ONE) == 1
    before = await pids(onlooker)
    for _ in range(50):
        with pytest.raises(DeadlineError):
            async with deadline(0.01):
                await database.reads.first(SLEEP_READ)
    await none_of(onlooker, SLEEPING)
    assert await database.reads.first(ONE) == 1
    assert await pids(onlooker) == before  # its backend was freed by a cancel request, and serves again


async def pids(onlooker: asyncpg.Connection) -> set[int]:
    return {row["pid"] for row in await onlooker.fetch(f"SELECT pid {OURS}")}


async def test_fifty_transactions_in_a_row_leave_the_only_connection_free(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    for number in range(50):
        with pytest.raises(DeadlineError):
            async with deadline(0.02), database.sessions.begin() as session:
                session.after_commit(lambda: pytest.fail("nothing was committed"))
                await session.execute(insert(Thing).values(label=f"lost {number}"))
                if number % 2:
                    await session.execute(SLEEP)
                await expire()
    await none_of(onlooker, SLEEPING)
    await none_of(onlooker, IN_TRANSACTION)
    async with database.sessions.begin() as session:
        await session.execute(insert(Thing).values(label="kept"))
    assert await labels(onlooker) == ["kept"]


async def test_a_deadline_reaches_those_who_wait_for_a_connection(database: Database) -> None:
    async with database.sessions.begin() as holder:
        await holder.execute(select(1))
        for _ in range(50):
            with pytest.raises(DeadlineError):
                async with deadline(0.001), database.sessions.begin() as session:
                    await session.execute(select(1))
    async with database.sessions.begin() as session:
        assert await session.scalar(select(1)) == 1
    with pytest.raises(DeadlineError):
        async with deadline(0.05):
            await asyncio.gather(*[database.reads.first(SLEEP_READ) for _ in range(5)])
    assert await database.reads.first(ONE) == 1


async def test_a_commit_in_progress_is_not_interrupted(database: Database, onlooker: asyncpg.Connection) -> None:
    """A deferred trigger makes COMMIT take longer than there is time for."""
    await onlooker.execute(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'"
    )
    await onlooker.execute(
        "CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION linger()"
    )
    called = False

    async def call() -> None:
        nonlocal called
        await asyncio.sleep(0.01)
        called = True

    try:
        async with deadline(0.2):
            async with database.sessions.begin() as session:
                await session.execute(insert(Thing).values(label="kept"))
                session.after_commit(call)
            assert remaining() is None
    finally:
        await onlooker.execute("DROP FUNCTION linger CASCADE")
    assert called
    assert await labels(onlooker) == ["kept"]


async def test_a_deadline_costs_no_round_trip(wire: WirePostgres, settings: Settings, things: None) -> None:
    through = {"url": wire.through(settings.database.url), "pool_size": 1, "read_pool_size": 1}
    async with open_database(settings.database.model_copy(update=through), "deadlines") as database:

        async def work(number: int) -> None:
            assert await database.reads.first(ONE) == 1
            async with database.sessions.begin() as session:
                await session.execute(insert(Thing).values(label=f"label {number}"))

        await work(1)
        with wire.counting() as without:
            await work(2)
        with wire.counting() as within:
            async with deadline(AGES):
                await work(3)
    assert (within.round_trips, within.messages) == (without.round_trips, without.messages)
    assert within.round_trips > 0
