"""`app jobs`: what it prints, what it changes, and one sentence for all that cannot be done."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result

from tests.plinth.jobs.service import cli
from tests.plinth.jobs.support import Number, Queue


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> "Run":
    monkeypatch.setenv("DATABASE_URL", database_url)
    return Run()


class Run:
    """Runs a command, in a thread because it has an event loop of its own."""

    async def __call__(self, *arguments: object) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, cli, ["jobs", *map(str, arguments)])

    async def succeeds(self, *arguments: object) -> str:
        done = await self(*arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout

    async def fails(self, *arguments: object) -> str:
        """Return the one sentence. The runner prints on standard output what `sys.exit` prints on standard error."""
        done = await self(*arguments)
        assert done.exit_code == 1
        sentence = done.output.removesuffix("\n")
        assert "\n" not in sentence
        return sentence


async def become(queue: Queue, state: str, id: UUID) -> None:
    finished = "now()" if state in {"dead", "succeeded", "cancelled"} else "NULL"
    await queue.onlooker.execute(
        f"UPDATE plinth_jobs SET state = $2, attempts = 5, percent = 40, finished_at = {finished}, reason = 'no\nway', "
        "cancel_requested_at = now() WHERE id = $1",
        id,
        state,
    )


async def test_list_has_the_newest_first_and_what_is_wanted(run: Run, queue: Queue) -> None:
    ids = [await queue.enqueue("work", Number(value=value)) for value in range(3)]
    other = await queue.enqueue("other")
    await become(queue, "dead", ids[1])
    wanted = "list", "--queue", queue.name
    lines = (await run.succeeds(*wanted)).splitlines()
    assert [UUID(line.split()[0]) for line in lines] == [other, *reversed(ids)]
    assert lines[2].split()[1:6] == ["dead", f"work_{queue.name}", queue.name, "5", "40"]
    assert lines[2].endswith(" no way")
    assert len((await run.succeeds(*wanted, "--limit", 2)).splitlines()) == 2
    assert (await run.succeeds(*wanted, "--state", "dead")).split()[0] == str(ids[1])
    assert (await run.succeeds(*wanted, "--name", f"other_{queue.name}")).split()[0] == str(other)
    assert await run.succeeds("list", "--queue", "nothing") == ""


async def test_show_prints_all_of_a_job(run: Run, queue: Queue) -> None:
    id = await queue.enqueue(payload=Number(value=7), key="a key")
    shown = dict(
        line.split(maxsplit=1) for line in (await run.succeeds("show", id)).splitlines() if " " in line.strip()
    )
    assert shown["id"] == str(id)
    assert (shown["state"], shown["key"], json.loads(shown["payload"])) == ("queued", "a key", {"value": 7})


@pytest.mark.parametrize("state", ["dead", "cancelled"])
async def test_retry_queues_a_job_again_with_all_its_attempts(run: Run, queue: Queue, state: str) -> None:
    id = await queue.enqueue()
    await become(queue, state, id)
    assert await run.succeeds("retry", id) == f"Job {id} is queued again.\n"
    job = await queue.one()
    assert (job["state"], job["attempts"], job["percent"], job["reason"]) == ("queued", 0, 0, None)
    assert (job["finished_at"], job["cancel_requested_at"]) == (None, None)


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
async def test_retry_refuses_what_needs_none(run: Run, queue: Queue, state: str) -> None:
    id = await queue.enqueue()
    await become(queue, state, id)
    before = await queue.one()
    assert await run.fails("retry", id) == f"No job {id} is dead or cancelled."
    assert await queue.one() == before


async def test_retry_refuses_a_job_whose_key_another_has(run: Run, queue: Queue) -> None:
    first = await queue.enqueue(key="a")
    await become(queue, "dead", first)
    await queue.enqueue(key="a")
    assert await run.fails("retry", first) == "Another job with its key is queued or running already."
    assert await queue.states() == ["dead", "queued"]


async def test_cancel_ends_a_job_that_waits(run: Run, queue: Queue) -> None:
    id = await queue.enqueue()
    assert await run.succeeds("cancel", id) == f"Job {id} is cancelled.\n"
    job = await queue.one()
    assert job["state"] == "cancelled"
    assert job["finished_at"] is not None


async def test_cancel_interrupts_a_job_that_runs(run: Run, queue: Queue) -> None:
    id = await queue.enqueue()
    await queue.onlooker.execute("UPDATE plinth_jobs SET state = 'running' WHERE id = $1", id)
    assert await run.succeeds("cancel", id) == f"Job {id} is being interrupted.\n"
    job = await queue.one()
    assert (job["state"], job["finished_at"]) == ("running", None)
    assert job["cancel_requested_at"] is not None


@pytest.mark.parametrize("state", ["dead", "succeeded", "cancelled"])
async def test_cancel_refuses_what_is_finished(run: Run, queue: Queue, state: str) -> None:
    id = await queue.enqueue()
    await become(queue, state, id)
    before = await queue.one()
    assert await run.fails("cancel", id) == f"No job {id} is queued or running."
    assert await queue.one() == before


async def test_stats_has_a_line_for_each_queue(run: Run, queue: Queue) -> None:
    await queue.enqueue()
    await become(queue, "dead", await queue.enqueue())
    head, *lines = (await run.succeeds("stats")).splitlines()
    assert head.split() == ["queue", "ready", "delayed", "running", "retries", "dead", "oldest_seconds"]
    [line] = [line.split() for line in lines if line.startswith(queue.name)]
    assert line[1:6] == ["1", "0", "0", "0", "1"]


@pytest.mark.parametrize("command", ["show", "retry", "cancel"])
async def test_an_unknown_id_is_one_sentence(run: Run, command: str) -> None:
    id = uuid4()
    assert str(id) in await run.fails(command, id)


@pytest.mark.parametrize("command", ["show", "retry", "cancel"])
async def test_what_is_no_id_is_refused(run: Run, command: str) -> None:
    done = await run(command, "7")
    assert done.exit_code == 2
    assert "valid UUID" in done.stderr


async def test_an_unknown_state_is_refused(run: Run) -> None:
    assert await run.fails("list", "--state", "lost") == (
        "--state is one of queued, running, succeeded, dead, cancelled."
    )


async def test_a_name_that_is_no_text_is_refused(run: Run) -> None:
    assert await run.fails("list", "--name", "\udcff") == "No name has these characters; they cannot be stored."


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", uuid4()), ("retry", uuid4()), ("cancel", uuid4()), ("stats",)]
)
async def test_an_unreachable_database_is_one_sentence(
    run: Run, arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert (await run.fails(*arguments)).startswith("The queue cannot be reached: ")
