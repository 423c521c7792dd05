"""What the pools report, and who is found to hold a connection for too long."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import literal, select, text
from sqlalchemy.exc import DBAPIError

from plinth.database import Database, Query, Session, open_database
from plinth.database.pools import FRAMES
from plinth.errors import UnavailableError
from plinth.settings import Settings
from plinth.telemetry.requests import RequestRecord, current_record
from tests.faults.redis_server import wait_until

ONE = Query(int, select(literal(1)))
HELD = "A connection has been in use"


def value(name: str, pool: str) -> float:
    return REGISTRY.get_sample_value(name, {"pool": pool}) or 0.0


def numbers(database: Database, pool: str) -> list[float]:
    database.sample()
    return [value(f"database_pool_{name}", pool) for name in ("size", "used", "waiting")]


@pytest.fixture
async def small(settings: Settings) -> AsyncIterator[Database]:
    """Of one connection each, which is held for too long at once."""
    update = {"pool_size": 1, "read_pool_size": 1, "held_seconds": 1e-9}
    async with open_database(settings.database.model_copy(update=update), "tests") as database:
        yield database


async def hold_a_transaction(database: Database, started: asyncio.Event, end: asyncio.Event) -> None:
    async with database.sessions.begin() as session:
        await ping(session)
        started.set()
        await end.wait()


async def ping(session: Session) -> None:
    await session.execute(text("SELECT 1"))


async def test_transactions_that_wait_for_a_connection_are_counted(small: Database) -> None:
    started, end = asyncio.Event(), asyncio.Event()
    waits = value("database_pool_wait_seconds_count", "changes")
    assert numbers(small, "changes") == [1, 0, 0]
    async with asyncio.TaskGroup() as group:
        group.create_task(hold_a_transaction(small, started, end))
        await started.wait()
        assert numbers(small, "changes") == [1, 1, 0]
        group.create_task(hold_a_transaction(small, asyncio.Event(), end))
        await wait_until(lambda: numbers(small, "changes") == [1, 1, 1])
        end.set()
    assert numbers(small, "changes") == [1, 0, 0]
    assert value("database_pool_wait_seconds_count", "changes") == waits + 1


async def test_reads_that_wait_for_a_connection_are_counted(small: Database) -> None:
    waits = value("database_pool_wait_seconds_count", "reads")
    await small.reads.first(ONE)
    assert value("database_pool_wait_seconds_count", "reads") == waits, "it was free"
    reads = [asyncio.create_task(small.reads.first(ONE)) for _ in range(3)]
    await asyncio.sleep(0)
    assert numbers(small, "reads") == [1, 1, 2]
    await asyncio.gather(*reads)
    assert numbers(small, "reads") == [1, 0, 0]
    assert value("database_pool_wait_seconds_count", "reads") == waits + 2


async def test_a_wait_in_vain_is_counted_too(settings: Settings) -> None:
    update = {"pool_size": 1, "pool_timeout_seconds": 0.05}
    started, end = asyncio.Event(), asyncio.Event()
    async with open_database(settings.database.model_copy(update=update), "tests") as database:
        task = asyncio.create_task(hold_a_transaction(database, started, end))
        await started.wait()
        waits = value("database_pool_wait_seconds_count", "changes")
        with pytest.raises(UnavailableError):
            await hold_a_transaction(database, asyncio.Event(), end)
        assert value("database_pool_wait_seconds_count", "changes") == waits + 1
        assert numbers(database, "changes") == [1, 1, 0]
        end.set()
        await task


async def test_a_transaction_that_takes_too_long_is_logged_once_with_its_stack(
    small: Database, caplog: pytest.LogCaptureFixture
) -> None:
    started, end = asyncio.Event(), asyncio.Event()
    record = RequestRecord()
    record.route_template = "/slow/{id}"
    token = current_record.set(record)
    task = asyncio.create_task(hold_a_transaction(small, started, end))
    current_record.reset(token)
    await started.wait()
    small.sample()
    small.sample()
    end.set()
    await task
    [found] = [each for each in caplog.records if HELD in each.getMessage()]
    assert found.levelno == logging.WARNING
    assert isinstance(found.args, dict)
    assert found.args["route"] == "/slow/{id}"
    stack = vars(found)["stack"]
    assert "in hold_a_transaction\n    await ping(session)" in stack
    assert 'await session.execute(text("SELECT 1"))' in stack.partition("await ping(session)")[2], "innermost last"


async def test_of_a_deep_stack_the_innermost_frames_are_logged(
    small: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def call(depth: int) -> None:
        if depth:
            await call_again(depth - 1)
            return
        async with small.sessions.begin() as session:
            await ping(session)
            small.sample()

    async def call_again(depth: int) -> None:  # Python shortens the stack of what calls itself
        await call(depth)

    await call(FRAMES)
    [stack] = [vars(each)["stack"] for each in caplog.records if HELD in each.getMessage()]
    assert stack.count("  File ") == FRAMES
    assert "await ping(session)" in stack


@pytest.mark.parametrize("held_seconds", [1e-9, 300.0])
async def test_a_job_is_named_if_it_holds_a_connection_for_longer_than_is_set(
    settings: Settings, caplog: pytest.LogCaptureFixture, held_seconds: float
) -> None:
    started, end = asyncio.Event(), asyncio.Event()
    update = {"held_seconds": held_seconds}
    async with open_database(settings.database.model_copy(update=update), "tests") as database:
        token = current_record.set(RequestRecord(job="import"))
        task = asyncio.create_task(hold_a_transaction(database, started, end))
        current_record.reset(token)
        await started.wait()
        database.sample()
        end.set()
        await task
    holders = [each.args["route"] for each in caplog.records if HELD in each.msg and isinstance(each.args, dict)]
    assert holders == (["import"] if held_seconds < 1 else [])


async def test_a_connection_that_was_returned_is_not_logged(small: Database, caplog: pytest.LogCaptureFixture) -> None:
    end = asyncio.Event()
    end.set()
    await hold_a_transaction(small, asyncio.Event(), end)
    with pytest.raises(DBAPIError):
        async with small.sessions.begin() as session:
            await session.execute(text("SELECT no_such_function()"))
    async with small.sessions.begin() as session:  # whose connection is thrown away
        await (await session.connection()).invalidate()
        await session.rollback()
    small.sample()
    assert HELD not in caplog.text
