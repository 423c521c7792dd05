"""The worker: what becomes of a job whose task returns, fails, takes too long, is cancelled or loses its worker."""

import asyncio
import itertools
import logging
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from sqlalchemy import text

from plinth.database import Database
from plinth.jobs import GiveUp, Job, JobQueries, Run, once, task
from plinth.jobs.claims import storable
from plinth.resilience import remaining
from plinth.telemetry import request_id
from tests.faults.redis_server import wait_until
from tests.plinth.jobs.support import Number, Queue, running


async def test_a_task_gets_its_payload_and_the_context_of_the_request(queue: Queue) -> None:
    seen: list[tuple[Any, ...]] = []

    async def work(run: Run[Database], number: Number) -> None:
        seen.append((run.id, run.attempt, run.state, number, request_id.get()))

    async with queue.working(queue.task(work)):
        token = request_id.set("abc")
        id = await queue.enqueue(payload=Number(value=3))
        request_id.reset(token)
        await wait_until(lambda: bool(seen))
    assert seen == [(id, 1, queue.database, Number(value=3), "abc")]
    job = await queue.one()
    assert (job["state"], job["percent"], job["attempts"], job["lease"], job["reason"]) == (
        "succeeded",
        100,
        1,
        None,
        None,
    )
    assert job["finished_at"] >= job["created_at"]


async def test_many_jobs_each_run_once(queue: Queue) -> None:
    done: list[int] = []
    started: set[int] = set()
    most = 0

    async def work(run: Run[Database], number: Number) -> None:
        nonlocal most
        started.add(number.value)
        most = max(most, len(started))
        await asyncio.sleep(0)
        started.discard(number.value)
        done.append(number.value)

    for value in range(100):
        await queue.enqueue(payload=Number(value=value))
    async with queue.working(queue.task(work), concurrency=7), queue.working(queue.task(work), concurrency=3):
        await wait_until(lambda: len(done) == 100)
    assert sorted(done) == [*range(100)]
    assert await queue.states() == ["succeeded"] * 100
    assert most <= 10


async def test_priorities_come_first_and_then_the_oldest(queue: Queue) -> None:
    order: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        order.append(number.value)

    for value, priority in enumerate([0, -1, 1, 0, 1, -1]):
        await queue.enqueue(payload=Number(value=value), priority=priority)
    async with queue.working(queue.task(work), concurrency=1):
        await wait_until(lambda: len(order) == 6)
    assert order == [2, 4, 0, 3, 1, 5]


async def test_a_job_that_another_transaction_has_locked_delays_no_other(queue: Queue, database_url: str) -> None:
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(number.value)

    locked = await queue.enqueue(payload=Number(value=1))
    await queue.enqueue(payload=Number(value=2))
    connection = await asyncpg.connect(database_url)
    worker = queue.worker(queue.task(work), poll_seconds=0.05)
    async with AsyncExitStack() as stack:
        async with connection.transaction():
            await connection.execute("SELECT FROM plinth_jobs WHERE id = $1 FOR UPDATE", locked)
            await stack.enter_async_context(running(worker))
            await wait_until(lambda: done == [2])
        await wait_until(lambda: done == [2, 1])
    await connection.close()


async def test_a_failure_is_tried_again_later_and_given_up_in_the_end(queue: Queue) -> None:
    attempts: list[tuple[int, bool]] = []

    async def work(run: Run[Database], number: Number) -> None:
        attempts.append((run.attempt, run.is_last))
        raise RuntimeError(f"no {run.attempt}")

    await queue.enqueue()
    async with queue.working(queue.task(work, attempts=3, backoff_seconds=100)):
        for attempt in (1, 2):

            async def is_queued_again() -> bool:
                job = await queue.one()
                return bool(job["state"] == "queued" and job["attempts"] == attempt)  # noqa: B023

            await wait_until(is_queued_again)
            job = await queue.one()
            pause = (job["run_at"] - job["created_at"]).total_seconds()
            assert 50 * 2 ** (attempt - 1) <= pause
            assert job["reason"] == f"RuntimeError: no {attempt}"
            await queue.make_due()
        await wait_until(lambda: len(attempts) == 3)
    assert attempts == [(1, False), (2, False), (3, True)]
    job = await queue.one()
    assert (job["state"], job["reason"], job["attempts"]) == ("dead", "RuntimeError: no 3", 3)
    assert job["finished_at"] is not None


def test_pauses_double_up_to_an_hour_with_jitter() -> None:
    @task(Job("work", Number), backoff_seconds=10)
    async def work(run: Run[None], number: Number) -> None:
        """Does nothing."""

    for attempt in range(1, 2000):
        longest = min(10 * 2 ** min(attempt - 1, 50), 3600)
        assert longest / 2 <= work.pause_after(attempt) <= longest
    assert len({work.pause_after(3) for _ in range(10)}) > 1


async def test_giving_up_needs_no_further_attempt(queue: Queue) -> None:
    async def work(run: Run[Database], number: Number) -> None:
        raise GiveUp("The account is closed.")

    await queue.enqueue()
    async with queue.working(queue.task(work)):
        await wait_until(lambda: _has_state(queue, "dead"))
    job = await queue.one()
    assert (job["reason"], job["attempts"]) == ("The account is closed.", 1)


async def test_an_attempt_that_takes_too_long_has_failed(queue: Queue) -> None:
    cancelled = asyncio.Event()

    async def work(run: Run[Database], number: Number) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await queue.enqueue()
    async with queue.working(queue.task(work, timeout_seconds=0.01, attempts=1)):
        await wait_until(lambda: _has_state(queue, "dead"))
    assert cancelled.is_set()
    assert (await queue.one())["reason"] == "It took longer than 0.01 s."


async def test_a_timeout_of_the_task_itself_is_told_apart(queue: Queue) -> None:
    async def work(run: Run[Database], number: Number) -> None:
        raise TimeoutError("the other service")

    await queue.enqueue()
    async with queue.working(queue.task(work, attempts=1)):
        await wait_until(lambda: _has_state(queue, "dead"))
    assert (await queue.one())["reason"] == "TimeoutError: the other service"


async def test_a_payload_that_does_not_fit_any_more_is_dead_and_the_queue_goes_on(queue: Queue) -> None:
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(number.value)

    await queue.enqueue(payload=Number(value=1))
    await queue.onlooker.execute(
        """UPDATE plinth_jobs SET payload = '{"value": "s3cret"}' WHERE queue = $1""", queue.name
    )
    await queue.enqueue(payload=Number(value=2))
    async with queue.working(queue.task(work), concurrency=1):
        await wait_until(lambda: done == [2])
    [misfit, fine] = await queue.jobs()
    assert (misfit["state"], fine["state"]) == ("dead", "succeeded")
    assert misfit["reason"].startswith("The payload is no Number: value: Input should be a valid integer")
    assert "s3cret" not in misfit["reason"]


async def test_a_job_of_a_newer_version_is_left_to_its_workers(queue: Queue) -> None:
    """Then it is given up after a day."""
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(number.value)

    await queue.enqueue("new", Number(value=1))
    await queue.enqueue("work", Number(value=2))
    async with queue.working(queue.task(work)):
        await wait_until(lambda: done == [2])
    assert await queue.states() == ["queued", "succeeded"]
    async with queue.working(queue.task(work), queue.task(work, "new")):
        await wait_until(lambda: done == [2, 1])
    for hours in (23, 25):
        id = await queue.enqueue("gone", Number(value=hours))
        age = timedelta(hours=hours)
        await queue.onlooker.execute("UPDATE plinth_jobs SET run_at = now() - $2::interval WHERE id = $1", id, age)
    async with queue.working(queue.task(work)):
        await wait_until(lambda: _has_state(queue, "dead"))
    reasons = {job["payload"]: (job["state"], job["reason"]) for job in await queue.jobs() if "gone" in job["name"]}
    assert reasons == {
        '{"value":23}': ("queued", None),
        '{"value":25}': ("dead", "No worker of its queue has a task for it."),
    }


async def test_a_delayed_job_waits(queue: Queue) -> None:
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(number.value)

    await queue.enqueue(payload=Number(value=1), delay=timedelta(hours=1))
    async with queue.working(queue.task(work), poll_seconds=0.01):
        await queue.enqueue(payload=Number(value=2))
        await wait_until(lambda: done == [2])
        await queue.make_due()
        await wait_until(lambda: done == [2, 1])


async def test_progress_is_visible_while_the_task_runs(queue: Queue) -> None:
    proceed = asyncio.Event()

    async def work(run: Run[Database], number: Number) -> None:
        await run.progress(number.value)
        await proceed.wait()

    id = await queue.enqueue(payload=Number(value=130))
    other = await queue.enqueue(payload=Number(value=40))
    queries = JobQueries(queue.database.reads)
    async with queue.working(queue.task(work)):

        async def has_reported() -> bool:
            both = [await queries.get(each) for each in (id, other)]
            return [status and (status.state, status.percent) for status in both] == [("running", 100), ("running", 40)]

        await wait_until(has_reported)
        proceed.set()
    done = await queries.get(other)
    assert done is not None
    assert (done.state, done.percent, done.attempts) == ("succeeded", 100, 1)
    assert await queries.get(UUID(int=0)) is None


async def test_an_effect_is_recorded_once_with_its_transaction(queue: Queue) -> None:
    effects: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        async with run.state.sessions.begin() as session:
            if await once(session, run):
                effects.append(run.attempt)
            assert await once(session, run, "another") is (run.attempt == 2)
            if run.attempt == 1:
                raise RuntimeError("rolled back")
        if run.attempt < 4:
            raise RuntimeError("after the commit")

    await queue.enqueue()
    async with queue.working(queue.task(work, backoff_seconds=0), poll_seconds=0.01):
        await wait_until(lambda: _has_state(queue, "succeeded"))
    assert effects == [1, 2]


async def test_a_cancelled_job_is_ended_and_not_tried_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.jobs.worker.EXTEND_SECONDS", 0.01)
    started = asyncio.Event()

    async def work(run: Run[Database], number: Number) -> None:
        started.set()
        await asyncio.Event().wait()

    await queue.enqueue()
    async with queue.working(queue.task(work)):
        await started.wait()
        await queue.onlooker.execute("UPDATE plinth_jobs SET cancel_requested_at = now() WHERE queue = $1", queue.name)
        await wait_until(lambda: _has_state(queue, "cancelled"))


async def test_a_stop_lets_jobs_finish(queue: Queue) -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def work(run: Run[Database], number: Number) -> None:
        started.set()
        await proceed.wait()

    await queue.enqueue()
    async with queue.working(queue.task(work)) as worker:
        await started.wait()
        worker.stop()
        await queue.enqueue()
        await queue.enqueue("other")
        proceed.set()
    assert await queue.states() == ["succeeded", "queued", "queued"]


@pytest.mark.parametrize("grace_seconds", [0, 100])
async def test_what_does_not_finish_in_time_is_given_back_at_once(queue: Queue, grace_seconds: float) -> None:
    """A second stop does not wait for the grace period."""
    started = asyncio.Event()
    cleaned_up: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(run.attempt)

    await queue.enqueue()
    async with queue.working(queue.task(work), grace_seconds=grace_seconds) as worker:
        await started.wait()
        worker.stop()
        if grace_seconds:
            worker.stop()
    job = await queue.one()
    assert (job["state"], job["attempts"], job["lease"], cleaned_up) == ("queued", 0, None, [1])
    assert job["run_at"] <= await queue.onlooker.fetchval("SELECT now()")


async def test_a_job_whose_worker_died_is_taken_by_another(queue: Queue) -> None:
    """Also while no new job arrives. An attempt that was claimed counts, whatever ended it."""
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(run.attempt)

    await queue.enqueue()
    await _claimed_by_a_dead_worker(queue)
    async with queue.working(queue.task(work)):
        await wait_until(lambda: done == [2])


async def test_a_job_that_kills_its_process_is_given_up(queue: Queue) -> None:
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(run.attempt)

    await queue.enqueue()
    await _claimed_by_a_dead_worker(queue, attempts=3)
    async with queue.working(queue.task(work, attempts=3)):
        await wait_until(lambda: _has_state(queue, "dead"))
    job = await queue.one()
    assert (done, job["attempts"], job["reason"]) == ([], 3, "Its process ended in attempt 3.")


async def test_an_attempt_that_lost_its_lease_settles_nothing(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.jobs.worker.EXTEND_SECONDS", 0.01)
    ended = asyncio.Event()
    started = asyncio.Event()

    async def work(run: Run[Database], number: Number) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await queue.enqueue()
    async with queue.working(queue.task(work)):
        await started.wait()
        await queue.onlooker.execute("UPDATE plinth_jobs SET lease = gen_random_uuid() WHERE queue = $1", queue.name)
        await ended.wait()
    assert await queue.states() == ["running"]


async def test_leases_are_extended_while_a_task_runs(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.jobs.worker.EXTEND_SECONDS", 0.01)
    started, proceed = asyncio.Event(), asyncio.Event()

    async def work(run: Run[Database], number: Number) -> None:
        started.set()
        await proceed.wait()

    await queue.enqueue()
    async with queue.working(queue.task(work)) as worker:
        await started.wait()
        before = (await queue.one())["leased_until"]

        async def is_extended() -> bool:
            return bool((await queue.one())["leased_until"] > before)

        await wait_until(is_extended)
        worker.stop()  # while it waits for the job, it goes on to extend
        before = (await queue.one())["leased_until"]
        await wait_until(is_extended)
        proceed.set()
    assert await queue.states() == ["succeeded"]


async def test_it_comes_back_when_its_connection_is_lost(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.jobs.worker.RECONNECT_SECONDS", 0.01)
    done: list[int] = []
    started, proceed = asyncio.Event(), asyncio.Event()

    async def work(run: Run[Database], number: Number) -> None:
        started.set()
        await proceed.wait()
        done.append(number.value)

    await queue.enqueue(payload=Number(value=1))
    async with queue.working(queue.task(work), poll_seconds=0.05):
        await started.wait()
        for value in range(2, 5):
            await queue.onlooker.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'worker' AND datname = current_database()"
            )
            proceed.set()
            await queue.enqueue(payload=Number(value=value))
            await wait_until(lambda: len(done) == value)  # noqa: B023
    assert sorted(done) == [1, 2, 3, 4]
    assert await queue.states() == ["succeeded"] * 4


async def test_only_the_chosen_queues_are_worked_on(queue: Queue) -> None:
    done: list[int] = []

    async def work(run: Run[Database], number: Number) -> None:
        done.append(number.value)

    await queue.enqueue(payload=Number(value=1))
    worker = queue.worker(queue.task(work), queues="another, and_another", poll_seconds=0.01)
    ids = itertools.count()
    async with running(worker):
        await wait_until(lambda: next(ids) > 20)
    assert done == []
    async with queue.working(queue.task(work), queues=""):  # those of its tasks
        await wait_until(lambda: done == [1])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reason=strategies.text(strategies.characters(categories=None, exclude_categories=()), max_size=1200))
async def test_any_reason_can_be_stored(onlooker: asyncpg.Connection, reason: str) -> None:
    stored = await onlooker.fetchval("SELECT $1::text", storable(reason))
    assert stored == storable(reason)
    assert len(stored) <= 1000


@pytest.mark.parametrize("reason", ["\0", "\ud800", "x" * 10_000, "", "\udfff\0"])
async def test_no_reason_keeps_the_outcomes_of_others_from_being_stored(
    queue: Queue, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    # What pytest captures of the log is sent by pytest-xdist as UTF-8, which half a surrogate pair is not.
    caplog.set_level(logging.CRITICAL, "plinth.jobs.attempts")

    async def work(run: Run[Database], number: Number) -> None:
        if number.value == 0:
            raise GiveUp(reason)

    for value in range(3):
        await queue.enqueue(payload=Number(value=value))
    async with queue.working(queue.task(work)):
        await wait_until(lambda: _has_state(queue, "succeeded"))
    assert await queue.states() == ["dead", "succeeded", "succeeded"]


async def _has_state(queue: Queue, state: str) -> bool:
    return state in await queue.states()


async def _claimed_by_a_dead_worker(queue: Queue, attempts: int = 1) -> None:
    await queue.onlooker.execute(
        "UPDATE plinth_jobs SET state = 'running', lease = gen_random_uuid(), attempts = $2, "
        "leased_until = now() - interval '1 ms' WHERE queue = $1",
        queue.name,
        attempts,
    )


async def test_what_a_task_calls_sees_its_deadline(queue: Queue) -> None:
    seen: list[float | None] = []

    async def work(run: Run[Database], number: Number) -> None:
        seen.append(remaining())
        async with run.state.sessions.begin() as session:
            await session.execute(text("SELECT pg_sleep(number) FROM generate_series(1, 1) AS number"))

    await queue.enqueue()
    async with queue.working(queue.task(work, timeout_seconds=0.5, attempts=1)):
        await wait_until(lambda: _has_state(queue, "dead"))
    [left] = seen
    assert left is not None
    assert 0 < left < 0.500001
    assert (await queue.one())["reason"] == "It took longer than 0.5 s."
