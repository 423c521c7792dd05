"""Schedules: each time is enqueued once, by one of all workers, and missed ones as declared."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import given, strategies

from plinth.database import Database
from plinth.jobs import Job, Run, Schedule
from plinth.jobs.claims import Claims
from plinth.jobs.schedules import DECLARE, MOST_MISSED, Timetable
from tests.faults.redis_server import wait_until
from tests.plinth.jobs.support import Number, Queue

INSTANTS = strategies.integers(946_684_800, 4_102_444_800).map(lambda second: datetime.fromtimestamp(second, UTC))
WORK = Job("work", Number)


def schedule(**arguments: Any) -> Schedule[Number]:
    return Schedule("each", WORK, Number(), **arguments)


@given(instant=INSTANTS, seconds=strategies.integers(1, 1_000_000))
def test_intervals_are_the_same_for_every_worker(instant: datetime, seconds: int) -> None:
    following = schedule(every_seconds=seconds).after(instant)
    assert instant < following <= instant + timedelta(seconds=seconds)
    assert (following - datetime(1970, 1, 1, tzinfo=UTC)) % timedelta(seconds=seconds) == timedelta(0)


@given(instant=INSTANTS, minute=strategies.integers(0, 59), hour=strategies.integers(0, 23))
def test_cron_is_in_utc(instant: datetime, minute: int, hour: int) -> None:
    following = schedule(cron=f"{minute} {hour} * * *").after(instant)
    assert instant < following <= instant + timedelta(days=1)
    assert (following.hour, following.minute, following.second, following.utcoffset()) == (
        hour,
        minute,
        0,
        timedelta(0),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"cron": "* * * * *", "every_seconds": 1},
        {"every_seconds": 0},
        {"cron": "60 * * * *"},
        {"cron": "daily"},
        {"cron": ""},
        {"cron": "* * * * * *"},
        {"cron": "0 0 31 2 *"},
    ],
)
def test_what_is_no_time_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="The schedule each"):
        schedule(**arguments)


def test_names_are_unique() -> None:
    with pytest.raises(ValueError, match="same name"):
        Timetable([schedule(every_seconds=1), schedule(every_seconds=2)])


@given(
    since=INSTANTS,
    late_seconds=strategies.floats(0, 100_000),
    every_seconds=strategies.integers(30, 10_000),
    missed=strategies.sampled_from(["once", "all", "skip"]),
)
def test_missed_times_are_made_up_for_as_declared(
    since: datetime, late_seconds: float, every_seconds: int, missed: Literal["once", "all", "skip"]
) -> None:
    each = schedule(every_seconds=every_seconds, missed=missed)
    first = each.after(since)
    now = first + timedelta(seconds=late_seconds)
    times = [first]
    while times[-1] <= now:
        times.append(each.after(times[-1]))
    following = times.pop()
    in_time = any(time > now - timedelta(minutes=1) for time in times)
    expected = {"once": 1, "all": min(len(times), MOST_MISSED), "skip": int(in_time)}[missed]
    assert each.due(first, now) == (expected, following)


async def test_workers_that_see_the_same_time_enqueue_one_job(queue: Queue, database_url: str) -> None:
    each = Schedule(uuid4().hex, queue.job(), Number(value=5), every_seconds=100_000)
    async with AsyncExitStack() as stack:
        claims = []
        for _ in range(5):
            connection = await asyncpg.connect(database_url)
            stack.push_async_callback(connection.close)
            claims.append(Claims(connection, [], []))
        now = await queue.onlooker.fetchval("SELECT now()")
        await claims[0].run(DECLARE, [each.name], [each.definition], [now])
        timetable = Timetable([each])
        for times in range(1, 20):
            due_at = await queue.onlooker.fetchval("SELECT next_at FROM plinth_schedules WHERE name = $1", each.name)
            results = await asyncio.gather(*(timetable._advance(one, each.name, due_at, due_at) for one in claims))
            assert {*results} == {each.after(due_at)}
            assert len(await queue.jobs()) == times


async def test_a_due_time_is_run(queue: Queue) -> None:
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(number.value)

    each = Schedule(uuid4().hex, queue.job(), Number(value=5), cron="0 0 1 1 *")
    where = "WHERE name = $1 AND definition = '0 0 1 1 *'"
    async with queue.working(queue.task(work), schedules=[each]):
        await wait_until(lambda: _exists(queue, f"SELECT count(*) = 1 FROM plinth_schedules {where}", each.name))
    assert done == []
    await queue.onlooker.execute(f"UPDATE plinth_schedules SET next_at = '2020-01-01' {where}", each.name)
    async with queue.working(queue.task(work), schedules=[each]):
        await wait_until(lambda: done == [5], seconds=5)  # by a notification: it polls every 10 s
        await wait_until(lambda: _exists(queue, f"SELECT next_at > now() FROM plinth_schedules {where}", each.name))


async def test_a_changed_definition_begins_again_from_now(queue: Queue) -> None:
    """What the old one missed is not run at times that the new one does not have."""
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(number.value)

    name = uuid4().hex
    await queue.onlooker.execute("INSERT INTO plinth_schedules VALUES ($1, 'every 5 s', '2020-01-01')", name)
    each = Schedule(name, queue.job(), Number(value=5), cron="0 0 1 1 *")
    changed = "SELECT next_at > now() AND definition = '0 0 1 1 *' FROM plinth_schedules WHERE name = $1"
    async with queue.working(queue.task(work), schedules=[each]):
        await wait_until(lambda: _exists(queue, changed, name))
    assert done == await queue.jobs() == []


async def _exists(queue: Queue, condition: str, name: str) -> bool:
    return bool(await queue.onlooker.fetchval(condition, name))
