"""What is reported of the queue and of the processes that run its jobs."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client import REGISTRY

from plinth.database import Database
from plinth.jobs import GiveUp, Run, queue_metrics
from plinth.testing.network import reserved_port
from tests.faults.redis_server import wait_until
from tests.faults.scraping import metrics_folder, scrape, until
from tests.faults.serving import Serve
from tests.faults.serving import serve as app_serve
from tests.plinth.jobs.support import Number, Queue
from tests.plinth.jobs.test_maintenance import DAY, add
from tests.plinth.jobs.test_processes import ATTEMPT, Start, enqueue, has, start

__all__ = ["app_serve", "start"]


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


@pytest.fixture
async def waiting(queue: Queue, onlooker: asyncpg.Connection) -> AsyncIterator[Queue]:
    """The only queue, with jobs in each state."""
    await onlooker.execute("DELETE FROM plinth_jobs")
    for seconds in (5, 100):
        await add(queue, "queued", due=-timedelta(seconds=seconds))
    await add(queue, "queued", due=DAY)
    for _ in range(3):
        await add(queue, "running", attempts=1)
    for _ in range(4):
        await add(queue, "dead", attempts=5, finished=DAY)
    await add(queue, "succeeded", finished=DAY)
    yield queue
    await onlooker.execute("DELETE FROM plinth_jobs")


def attempts(url: str) -> dict[tuple[str, str], float]:
    found = scrape(url).get("job_attempts_total", [])
    return {(labels["name"], labels["outcome"]): value for labels, value in found}


async def test_a_scrape_has_the_depth_and_the_age_of_each_queue(waiting: Queue) -> None:
    jobs, oldest = await queue_metrics(waiting.database.reads)
    queue = {"queue": waiting.name}
    assert {sample.labels["state"]: sample.value for sample in jobs.samples} == {
        "ready": 2,
        "delayed": 1,
        "running": 3,
        "dead": 4,
    }
    assert all(sample.labels == queue | {"state": sample.labels["state"]} for sample in jobs.samples)
    [age] = oldest.samples
    assert age.labels == queue
    assert 100 <= age.value < 100 + 60 * 60


async def test_a_queue_where_nothing_is_ready_has_no_age(queue: Queue, onlooker: asyncpg.Connection) -> None:
    await onlooker.execute("DELETE FROM plinth_jobs")
    await add(queue, "queued", due=DAY)
    _, oldest = await queue_metrics(queue.database.reads)
    assert [sample.value for sample in oldest.samples] == [0]


async def test_each_attempt_is_counted_by_its_outcome(queue: Queue) -> None:
    async def work(run: Run[Database], number: Number) -> None:
        if run.attempt == 1:
            raise OSError
        if number.value == 2:
            raise GiveUp("It is two.")

    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("job_attempts_total", {"name": name, "outcome": outcome}) or 0

    name = queue.job().name
    async with queue.working(queue.task(work, attempts=3)):
        for value in (1, 2):
            await queue.enqueue(payload=Number(value=value))
        await wait_until(lambda: counted("retried") == 2)
        await has(queue, ("queued", 1), ("queued", 1))
        await queue.make_due()
        await has(queue, ("succeeded", 2), ("dead", 2))
    assert [counted(outcome) for outcome in ("succeeded", "retried", "dead")] == [1, 2, 1]
    assert REGISTRY.get_sample_value("job_duration_seconds_count", {"name": name}) == 4


async def test_a_worker_of_one_process_serves_its_metrics(
    start: Start, queue: Queue, tmp_path: Path, port: int
) -> None:
    with start("worker", METRICS_PORT=port) as worker:
        await enqueue(queue, tmp_path / "proceed")
        worker.wait_for(ATTEMPT.format(1))
        url = f"http://127.0.0.1:{port}/metrics"
        assert attempts(url) == {}
        (tmp_path / "proceed").touch()
        await has(queue, ("succeeded", 1))
        assert attempts(url) == {("hold", "succeeded"): 1}
        with pytest.raises(httpx.ConnectError):
            attempts(f"http://127.0.0.2:{port}/metrics")  # HOST counts for this port too


async def test_what_killed_processes_of_a_worker_have_counted_remains(
    start: Start, queue: Queue, tmp_path: Path, port: int
) -> None:
    with start("worker", processes=2, METRICS_PORT=port) as worker:
        url = f"http://127.0.0.1:{port}/metrics"
        await enqueue(queue, tmp_path / "proceed")
        process = int(worker.wait_for(ATTEMPT.format(1)))
        (tmp_path / "proceed").touch()
        await has(queue, ("succeeded", 1))
        until(lambda: attempts(url) == {("hold", "succeeded"): 1})
        folder = metrics_folder(process)
        os.kill(process, signal.SIGKILL)
        worker.wait_for("exit code -9; another is started")
        assert attempts(url) == {("hold", "succeeded"): 1}
        assert (folder / "counter_archive.db").exists()
        assert [*folder.glob(f"*_{process}.db")] == []
        for number in range(2, 4):
            await enqueue(queue, tmp_path / "proceed")
            await has(queue, *[("succeeded", 1)] * number)
        until(lambda: attempts(url) == {("hold", "succeeded"): 3})
        worker.process.terminate()
        worker.wait_until_exited()
        assert not folder.exists()


async def test_a_server_reports_the_worker_beside_it(app_serve: Serve, port: int) -> None:
    def processes() -> dict[str, float]:
        return {labels["kind"]: value for labels, value in scrape(url)["service_processes"]}

    with app_serve(("app", "serve", "--with-worker"), METRICS_PORT=str(port)) as server:
        url = f"http://127.0.0.1:{port}/metrics"
        until(lambda: processes() == {"web": 1, "worker": 1})
        used = scrape(url)["service_cpu_seconds_total"][0][1]
        folder = metrics_folder(server.workers()[-1])
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("exit code 0; another is started")
        server.wait_for("Worker exiting")
        until(lambda: processes() == {"web": 1, "worker": 1})
        assert scrape(url)["service_cpu_seconds_total"][0][1] >= used
        server.process.terminate()
        server.wait_until_exited()
        assert not folder.exists()
