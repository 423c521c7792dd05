"""Old jobs are deleted with their effects, and the numbers of each queue are those of its rows."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from plinth.jobs import QueueNumbers, prune_jobs, queue_numbers
from tests.plinth.jobs.support import Queue

ADD = """
    INSERT INTO plinth_jobs (id, name, queue, state, payload, attempts, run_at, finished_at)
    VALUES ($1, 'work', $2, $3, '{}', $4, now() + $5, CASE WHEN $6::interval IS NOT NULL THEN now() - $6 END)
"""
DAY = timedelta(days=1)


async def add(
    queue: Queue, state: str, attempts: int = 0, due: timedelta = timedelta(0), finished: timedelta | None = None
) -> UUID:
    id = uuid4()
    await queue.onlooker.execute(ADD, id, queue.name, state, attempts, due, finished)
    return id


async def prune(queue: Queue, most: int = 100) -> int:
    async with queue.database.sessions.begin() as session:
        return await prune_jobs(session, 7 * DAY, 90 * DAY, most)


@pytest.fixture(autouse=True)
async def _no_other_jobs(queue: Queue) -> None:
    await queue.onlooker.execute("DELETE FROM plinth_jobs")


async def test_each_state_is_pruned_at_its_age(queue: Queue) -> None:
    kept = {
        await add(queue, "queued", due=-100 * DAY),
        await add(queue, "running", due=-100 * DAY),
        await add(queue, "succeeded", finished=7 * DAY - timedelta(minutes=1)),
        await add(queue, "cancelled", finished=7 * DAY - timedelta(minutes=1)),
        await add(queue, "dead", finished=90 * DAY - timedelta(minutes=1)),
    }
    await add(queue, "succeeded", finished=7 * DAY + timedelta(minutes=1))
    await add(queue, "cancelled", finished=7 * DAY + timedelta(minutes=1))
    await add(queue, "dead", finished=90 * DAY + timedelta(minutes=1))
    assert await prune(queue) == 3
    assert {job["id"] for job in await queue.jobs()} == kept
    assert await prune(queue) == 0


async def test_at_most_so_many_are_deleted_at_once(queue: Queue) -> None:
    for _ in range(5):
        await add(queue, "succeeded", finished=8 * DAY)
    assert [await prune(queue, most=2) for _ in range(4)] == [2, 2, 1, 0]
    assert await queue.jobs() == []


async def test_effects_are_deleted_with_their_job(queue: Queue) -> None:
    old, young = await add(queue, "succeeded", finished=8 * DAY), await add(queue, "succeeded", finished=DAY)
    for id in (old, young):
        await queue.onlooker.execute("INSERT INTO plinth_job_effects VALUES ($1, '')", id)
    assert await prune(queue) == 1
    left = await queue.onlooker.fetch("SELECT job_id FROM plinth_job_effects WHERE job_id = ANY ($1)", [old, young])
    assert [row["job_id"] for row in left] == [young]


async def test_a_locked_job_is_left_for_the_next_time(queue: Queue) -> None:
    locked, free = await add(queue, "dead", finished=91 * DAY), await add(queue, "dead", finished=91 * DAY)
    async with queue.onlooker.transaction():
        await queue.onlooker.execute("SELECT FROM plinth_jobs WHERE id = $1 FOR UPDATE", locked)
        assert await prune(queue) == 1
        assert [job["id"] for job in await queue.jobs()] == [locked] != [free]
    assert await prune(queue) == 1


async def test_the_numbers_of_each_queue(queue: Queue) -> None:
    assert await queue_numbers(queue.database.reads) == []
    for _ in range(2):
        await add(queue, "queued", due=-timedelta(seconds=5))
    await add(queue, "queued", attempts=1, due=-timedelta(seconds=100))
    await add(queue, "queued", attempts=2, due=DAY)
    await add(queue, "queued", due=DAY)
    await add(queue, "running", attempts=1, due=-DAY)
    await add(queue, "running", attempts=2, due=-DAY)
    for _ in range(6):
        await add(queue, "dead", attempts=5, due=-DAY, finished=DAY)
    await add(queue, "succeeded", attempts=2, finished=DAY)
    await add(queue, "cancelled", finished=DAY)
    [numbers] = await queue_numbers(queue.database.reads)
    seconds = numbers.oldest_seconds
    assert seconds is not None
    assert seconds >= 100
    assert numbers == QueueNumbers(
        queue=queue.name, ready=3, delayed=2, running=2, retries=3, dead=6, oldest_seconds=seconds
    )


async def test_a_queue_where_nothing_is_ready_has_no_oldest(queue: Queue) -> None:
    await add(queue, "queued", due=DAY)
    other = queue.name + "_other"
    await queue.onlooker.execute(ADD, uuid4(), other, "dead", 1, timedelta(0), DAY)
    assert await queue_numbers(queue.database.reads) == [
        QueueNumbers(queue=queue.name, ready=0, delayed=1, running=0, retries=0, dead=0, oldest_seconds=None),
        QueueNumbers(queue=other, ready=0, delayed=0, running=0, retries=0, dead=1, oldest_seconds=None),
    ]
