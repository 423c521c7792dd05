"""Worker processes as an operator sees them: how many there are, what signals do, and what the status files say."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from plinth.jobs import Job, Jobs
from plinth.jobs.status import StatusFiles
from plinth.testing.environment import child_environment
from tests.faults.redis_server import wait_until
from tests.faults.serving import Served
from tests.plinth.jobs.service import SERVER_EXIT_CODE, Hold
from tests.plinth.jobs.support import Queue

SECONDS = 60
ATTEMPT = r"attempt {} in process (\d+)"
Start = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def start(tmp_path: Path, database_url: str, queue: Queue) -> Start:
    (tmp_path / "app.py").write_text("from tests.plinth.jobs.service import main\n\nmain()\n")

    @contextmanager
    def started(*arguments: str, **environment: Any) -> Iterator[Served]:
        settings = {"processes": 1, "grace_seconds": 1000, "status_folder": tmp_path / "status"} | environment
        variables = {name if name.isupper() else f"JOB_{name.upper()}": str(each) for name, each in settings.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments],
            cwd=tmp_path,
            env=child_environment(DATABASE_URL=database_url, JOB_QUEUES=queue.name, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        command = Served(process)
        try:
            yield command
        finally:
            process.kill()
            command.wait_until_exited()  # its output ends with the last of its children

    return started


@pytest.fixture
def status(tmp_path: Path) -> Path:
    return tmp_path / "status"


async def enqueue(queue: Queue, until: Path) -> None:
    async with queue.database.sessions.begin() as session:
        await Jobs(session).enqueue(Job("hold", Hold, queue.name), Hold(until=until))


async def are(status: Path, *names: str) -> None:
    await wait_until(lambda: {file.name for file in status.glob("*")} == {*names}, SECONDS)


async def has(queue: Queue, *rows: tuple[str, int]) -> None:
    """Wait until the jobs, in the order of their creation, have these states and attempts."""

    async def has_them() -> bool:
        return [(job["state"], job["attempts"]) for job in await queue.jobs()] == [*rows]

    await wait_until(has_them, SECONDS)


async def test_the_job_of_a_killed_process_is_taken_by_another_and_the_process_replaced(
    start: Start, queue: Queue, status: Path, tmp_path: Path
) -> None:
    with start("worker", processes=2) as command:
        await are(status, "alive-0", "alive-1", "ready-0", "ready-1")
        await enqueue(queue, tmp_path / "proceed")
        os.kill(int(command.wait_for(ATTEMPT.format(1))), signal.SIGKILL)
        for number in (0, 1):
            os.utime(status / f"alive-{number}", (0, 0))
        command.wait_for("exit code -9; another is started")
        lease = "SELECT leased_until - now() FROM plinth_jobs WHERE state = 'running' AND queue = $1"
        left = await queue.onlooker.fetchval(lease, queue.name)
        assert timedelta(0) < left <= timedelta(seconds=15)  # so that another takes it within 30 s, by the defaults
        await queue.onlooker.execute(
            "UPDATE plinth_jobs SET leased_until = now() - interval '1 ms' WHERE queue = $1", queue.name
        )
        command.wait_for(ATTEMPT.format(2))  # no other job arrives
        (tmp_path / "proceed").touch()
        await has(queue, ("succeeded", 2))
        await wait_until(lambda: all(file.stat().st_mtime for file in status.glob("alive-*")), SECONDS)
        await are(status, "alive-0", "alive-1", "ready-0", "ready-1")
        command.process.terminate()
        command.wait_until_exited()
        assert command.process.returncode == 0
        await are(status)


async def test_a_stop_finishes_what_it_can_and_a_second_one_gives_back_the_rest(
    start: Start, queue: Queue, tmp_path: Path
) -> None:
    with start("worker") as command:
        await enqueue(queue, tmp_path / "proceed")
        await enqueue(queue, tmp_path / "never")
        command.wait_for(ATTEMPT.format(1), times=2)
        command.process.terminate()
        await enqueue(queue, tmp_path / "later")
        (tmp_path / "proceed").touch()
        await has(queue, ("succeeded", 1), ("running", 1), ("queued", 0))
        command.process.terminate()
        command.wait_until_exited()
        assert command.process.returncode == 0
    await has(queue, ("succeeded", 1), ("queued", 0), ("queued", 0))
    assert [job["lease"] for job in await queue.jobs()] == [None] * 3


async def test_after_the_grace_period_jobs_are_given_back(start: Start, queue: Queue, tmp_path: Path) -> None:
    with start("worker", grace_seconds=0.1) as command:
        await enqueue(queue, tmp_path / "never")
        command.wait_for(ATTEMPT.format(1))
        command.process.terminate()
        command.wait_until_exited()
        assert command.process.returncode == 0
    await has(queue, ("queued", 0))
    job = await queue.one()
    assert (job["lease"], job["reason"]) == (None, "Its worker was stopped.")


async def test_processes_whose_supervisor_was_killed_stop(
    start: Start, queue: Queue, status: Path, tmp_path: Path
) -> None:
    with start("worker", processes=2, grace_seconds=0.1) as command:
        await are(status, "alive-0", "alive-1", "ready-0", "ready-1")
        await enqueue(queue, tmp_path / "never")
        command.wait_for(ATTEMPT.format(1))
        command.process.kill()
        command.wait_until_exited()
    await are(status)
    await has(queue, ("queued", 0))


async def test_it_is_alive_but_not_ready_while_postgresql_is_away(
    start: Start, status: Path, database_url: str
) -> None:
    with start("worker") as command:
        await are(status, "alive-0", "ready-0")
        async with away(database_url):
            await are(status, "alive-0")
            os.utime(status / "alive-0", (0, 0))
            await wait_until(lambda: (status / "alive-0").stat().st_mtime > 0, SECONDS)
            assert command.process.poll() is None
        await are(status, "alive-0", "ready-0")


async def test_the_readiness_file_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    """Which may not reach the queue itself."""
    (tmp_path / "ready-0").touch()
    files = StatusFiles(tmp_path, 0)
    async with files.alive():
        await are(tmp_path, "alive-0")
        with files.ready():
            await are(tmp_path, "alive-0", "ready-0")
    await are(tmp_path)


async def test_a_worker_beside_a_server(start: Start, queue: Queue, status: Path, tmp_path: Path) -> None:
    """SIGHUP reloads the server and replaces the worker, which finishes its job first; SIGTERM ends both."""
    with start("both") as command:
        server = command.wait_for(r"server (\d+)")
        await enqueue(queue, tmp_path / "proceed")
        first = command.wait_for(ATTEMPT.format(1))
        command.process.send_signal(signal.SIGHUP)
        command.wait_for("server reloads")
        (tmp_path / "proceed").touch()
        command.wait_for("exit code 0; another is started")
        await has(queue, ("succeeded", 1))
        await are(status, "alive-0", "ready-0")
        await enqueue(queue, tmp_path / "proceed")
        await has(queue, ("succeeded", 1), ("succeeded", 1))
        command.wait_for(ATTEMPT.format(1), times=2)  # the output is read by a thread
        assert re.findall(ATTEMPT.format(1), command.output)[1] != first
        assert len(re.findall(r"server \d+", command.output)) == 1
        command.process.terminate()
        command.wait_until_exited()
        assert command.process.returncode == SERVER_EXIT_CODE
    await are(status)
    assert server


async def test_a_server_that_ends_by_itself_ends_the_worker(start: Start, status: Path) -> None:
    with start("both") as command:
        await are(status, "alive-0", "ready-0")
        os.kill(int(command.wait_for(r"server (\d+)")), signal.SIGTERM)
        command.wait_until_exited()
        assert command.process.returncode == SERVER_EXIT_CODE
    await are(status)


@asynccontextmanager
async def away(database_url: str) -> AsyncIterator[None]:
    """Lets no connection of a worker to the database live, nor begin."""
    url = make_url(database_url)
    server = await asyncpg.connect(url.set(database="postgres").render_as_string(hide_password=False))
    await server.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false")
    try:
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'worker' AND datname = $1",
            url.database,
        )
        yield
    finally:
        await server.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true")
        await server.close()
