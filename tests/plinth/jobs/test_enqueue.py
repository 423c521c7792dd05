"""Enqueueing: part of the caller's transaction, one statement, one job for a key."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import text

from plinth.database import open_database
from plinth.jobs import Job, JobQueries, Jobs
from plinth.settings import Settings
from plinth.telemetry import request_id
from plinth.testing.wire import WirePostgres
from tests.faults.redis_server import wait_until
from tests.plinth.jobs.support import Number, Queue


async def test_a_job_is_there_once_its_transaction_commits(queue: Queue) -> None:
    async with queue.database.sessions.begin() as session:
        id = await Jobs(session).enqueue(queue.job(), Number(value=7))
        assert await queue.jobs() == []
    job = await queue.one()
    assert (job["id"], job["state"], json.loads(job["payload"])) == (id, "queued", {"value": 7})


async def test_a_job_shows_who_requested_it_also_while_it_runs(queue: Queue) -> None:
    token = request_id.set("r1")
    async with queue.database.sessions.begin() as session:
        ids = [await Jobs(session).enqueue(queue.job(), Number(), requested_by=user) for user in ("user:7", None)]
    request_id.reset(token)
    found = [await JobQueries(queue.database.reads).get(id) for id in ids]
    assert [status.requested_by for status in found if status] == ["user:7", None]
    assert json.loads((await queue.jobs())[0]["context"])["request_id"] == "r1"


async def test_without_the_commit_there_is_no_job(queue: Queue) -> None:
    with pytest.raises(ZeroDivisionError):
        async with queue.database.sessions.begin() as session:
            await Jobs(session).enqueue(queue.job(), Number())
            1 / 0  # noqa: B018
    assert await queue.jobs() == []


async def test_enqueueing_adds_one_statement(queue: Queue, settings: Settings, wire: WirePostgres) -> None:
    url = wire.through(settings.database.url.get_secret_value())
    async with open_database(settings.database.model_copy(update={"url": type(settings.database.url)(url)}), "t") as db:
        for most in (9, 1):  # the second time, everything is prepared
            async with db.sessions.begin() as session:
                await session.execute(text("SELECT 1"))
                with wire.counting() as count:
                    await Jobs(session).enqueue(queue.job(), Number())
            assert len(count.statements) <= most
    assert count.round_trips == 1


async def test_a_key_is_one_job_until_that_is_finished(queue: Queue) -> None:
    first = await queue.enqueue(key="a")
    assert await queue.enqueue(key="a") == first
    other = await queue.enqueue(key="b")
    assert other != first
    assert await queue.enqueue("another", key="a") not in {first, other}
    await queue.onlooker.execute("UPDATE plinth_jobs SET state = 'succeeded', finished_at = now() WHERE id = $1", first)
    assert await queue.enqueue(key="a") != first


async def test_a_taken_key_does_not_abort_the_transaction(queue: Queue) -> None:
    first = await queue.enqueue(key="a")
    async with queue.database.sessions.begin() as session:
        assert await Jobs(session).enqueue(queue.job(), Number(), key="a") == first
        second = await Jobs(session).enqueue(queue.job(), Number(), key="b")
    assert {job["id"] for job in await queue.jobs()} == {first, second}


async def test_transactions_with_the_same_key_at_once_make_one_job(queue: Queue) -> None:
    ids = await asyncio.gather(*(queue.enqueue(key="a") for _ in range(10)))
    assert {job["id"] for job in await queue.jobs()} == {*ids}
    assert len({*ids}) == 1


@pytest.mark.parametrize("commits", [True, False])
async def test_a_key_waits_for_the_transaction_that_has_it(queue: Queue, commits: bool) -> None:
    async with queue.database.sessions.begin() as session:
        first = await Jobs(session).enqueue(queue.job(), Number(), key="a")
        other = asyncio.create_task(queue.enqueue(key="a"))
        await wait_until(lambda: _waits_for_a_lock(queue))
        if not commits:
            await session.rollback()
    assert (await other == first) is commits
    assert len(await queue.jobs()) == 1


async def test_the_context_of_the_request_travels_along(queue: Queue) -> None:
    token = request_id.set("abc")
    await queue.enqueue()
    request_id.reset(token)
    assert json.loads((await queue.one())["context"]) == {"request_id": "abc"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"key": ""},
        {"key": "x" * 201},
        {"key": "a\0"},
        {"key": "a\nb"},
        {"key": "\ud800"},
        {"delay": timedelta(seconds=-1)},
        {"delay": timedelta.max},
        {"priority": 2},
        {"priority": None},
    ],
)
async def test_what_does_not_fit_is_refused_before_the_database_is_asked(
    queue: Queue, arguments: dict[str, Any]
) -> None:
    async with queue.database.sessions.begin() as session:
        with pytest.raises(ValueError, match="a job"):
            await Jobs(session).enqueue(queue.job(), Number(), **arguments)
        await Jobs(session).enqueue(queue.job(), Number(value=1))  # the transaction is not aborted
    assert json.loads((await queue.one())["payload"]) == {"value": 1}


async def test_a_payload_of_another_type_is_refused(queue: Queue) -> None:
    class Other(BaseModel):
        value: int = 0

    async with queue.database.sessions.begin() as session:
        with pytest.raises(TypeError, match="takes a Number, not a Other"):
            await Jobs(session).enqueue(queue.job(), Other())  # type: ignore[misc]


class Words(BaseModel):
    text: str


@pytest.mark.parametrize("text", ["", "\0", "\\u0000", "é\U0001f600", "x" * 1_000_000, "'; DROP TABLE plinth_jobs; --"])
async def test_any_text_is_stored_as_it_is(queue: Queue, text: str) -> None:
    async with queue.database.sessions.begin() as session:
        await Jobs(session).enqueue(Job("words", Words, queue.name), Words(text=text))
    assert Words.model_validate_json((await queue.one())["payload"]).text == text


@pytest.mark.parametrize("name", ["", "a b", "a-b", "x" * 101, "1a"])
def test_the_name_of_a_job_is_an_identifier(name: str) -> None:
    for names in ((name, "default"), ("work", name)):
        with pytest.raises(ValueError, match="is an identifier"):
            Job(names[0], Number, names[1])


def test_a_secret_would_be_lost_and_is_refused() -> None:
    class Hidden(BaseModel):
        token: SecretStr

    class Outer(BaseModel):
        hidden: list[Hidden]

    for payload in (Hidden, Outer):
        with pytest.raises(TypeError, match="stored as asterisks"):
            Job("work", payload)


async def test_a_waiting_worker_is_notified_at_the_commit(queue: Queue, database_url: str) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database_url)
    await listener.add_listener("plinth_jobs", lambda *message: heard.put_nowait(message[-1]))
    await queue.enqueue(delay=timedelta(seconds=30))
    await queue.enqueue()
    await listener.execute("SELECT pg_notify('plinth_jobs', 'end')")
    names = [await heard.get()]
    while names[-1] != "end":
        names.append(await heard.get())
    assert names.count(queue.name) == 1
    await listener.close()


async def _waits_for_a_lock(queue: Queue) -> bool:
    return bool(await queue.onlooker.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"))
