"""Workers are killed at the worst points while PostgreSQL restarts: no effect is lost, and none happens twice."""

import asyncio
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient, HTTPError

from plinth.testing.locks import held
from plinth.testing.migrations import migrate
from plinth.testing.network import reserved_port
from plinth.testing.postgres import Postgres
from plinth.testing.servers import POSTGRES_VERSION
from tests.faults.jobs_app import POINTS, TABLES, Orders, Point, work
from tests.faults.redis_server import wait_until
from tests.faults.workers import print_log, served

REQUESTS = 200
KILLS = 100
RESTARTS = 5
WORKERS = 3
REFUSED = 4  # every fourth request is rolled back
LIMIT_SECONDS = 300

# A worker that is forked from a process which has imported everything starts in an instant.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.faults.jobs_app"])


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A durable server, so that a restart loses nothing that was committed."""
    with held(tmp_path), reserved_port() as port:
        postgres = Postgres(tmp_path, int(os.environ.get("PG", POSTGRES_VERSION)), durable=True, port=port)
        try:
            url = await asyncio.to_thread(postgres.start)
            await asyncio.to_thread(migrate, url)
            yield postgres
        finally:
            await asyncio.to_thread(postgres.process.stop)


@dataclass
class Service:
    """The queue and its tables, the workers on it, and what these have announced."""

    url: str
    folder: Path
    claims: list[tuple[UUID, int]] = field(default_factory=list)

    @contextmanager
    def worker(self, point: Point | None = None, skip: int = 0, waits: bool = False) -> Iterator["WorkerProcess"]:
        ours, theirs = processes.Pipe()
        orders = Orders(self.url, self.folder, point, skip, waits)
        process = processes.Process(target=work, args=(orders, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            yield WorkerProcess(process, ours, self.claims)
        finally:
            process.kill()
            process.join()
            ours.close()

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def unfinished(self) -> int:
        """How many jobs are; none while PostgreSQL is away."""
        with suppress(asyncpg.PostgresError, OSError):
            [(count,)] = await self.fetch("SELECT count(*) FROM plinth_jobs WHERE state IN ('queued', 'running')")
            return int(count)
        return 0


@dataclass
class WorkerProcess:
    process: Any
    messages: Connection
    claims: list[tuple[UUID, int]]

    async def announced(self, wanted: object) -> None:
        """Wait until it has announced this. Raises EOFError if it ends before."""
        while (message := await asyncio.to_thread(self.messages.recv)) != wanted:
            if isinstance(message, tuple):
                self.claims.append(message)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL

    def proceed(self) -> None:
        self.messages.send(None)

    async def stopped(self) -> None:
        """Wait until it has ended by itself, after SIGTERM."""
        self.process.terminate()
        with suppress(EOFError):
            await self.announced(None)
        self.process.join()
        assert self.process.exitcode == 0


@pytest.fixture
async def service(postgres: Postgres, tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(f"postgresql://postgres@127.0.0.1:{postgres.port}/service", tmp_path)
    connection = await asyncpg.connect(service.url)
    await connection.execute(TABLES)
    await connection.close()
    yield service
    print_log(tmp_path / "worker.log")


@dataclass
class Requests:
    """Every answer to a request is one of three: it is committed, it is rolled back, or the outcome is unknown."""

    client: AsyncClient
    sent: int = 0
    committed: set[int] = field(default_factory=set)
    rolled_back: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)

    @property
    def known(self) -> int:
        return len(self.committed | self.rolled_back)

    async def send(self) -> None:
        self.sent += 1
        number = self.sent
        answers = {201: self.committed, 409: self.rolled_back}
        try:
            answer = await self.client.post(f"/requests/{number}", params={"refused": number % REFUSED == 0})
        except HTTPError:
            self.unknown.add(number)
        else:
            answers.get(answer.status_code, self.unknown).add(number)


@dataclass
class Faults:
    service: Service
    postgres: Postgres
    points: list[Point]
    kills: Counter[Point] = field(default_factory=Counter)
    restarts: int = 0

    async def kill_workers(self) -> None:
        """One worker after the other, each at its point."""
        while self.points:
            point = self.points.pop()
            with self.service.worker(point, skip=random.randrange(2)) as worker:
                await worker.announced(point)
                worker.kill()
            self.kills[point] += 1

    async def restart_postgres(self) -> None:
        """At even distances, by turns in order and as after a crash."""
        for restart in range(1, RESTARTS + 1):
            await wait_until(lambda: self.kills.total() >= restart * KILLS // (RESTARTS + 1), LIMIT_SECONDS)  # noqa: B023
            assert self.postgres.process.pid
            if restart % 2 == 0:
                os.kill(self.postgres.process.pid, signal.SIGQUIT)
            await asyncio.to_thread(self.postgres.process.stop)
            await asyncio.to_thread(self.postgres.start)
            self.restarts = restart


async def test_killed_workers_and_restarts_lose_no_effect_and_repeat_none(
    service: Service, postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [*POINTS * (KILLS // len(POINTS))]
    random.shuffle(points)
    faults = Faults(service, postgres, points)
    async with asyncio.timeout(LIMIT_SECONDS):
        async with served("tests.faults.jobs_app:app", tmp_path / "web.log", {"DATABASE_URL": service.url}) as client:
            requests = Requests(client)

            async def send_requests() -> None:
                """In step with the kills, and more where the workers would have nothing to be killed at."""
                while requests.known < REQUESTS or faults.kills.total() < KILLS or faults.restarts < RESTARTS:
                    if requests.known * KILLS < faults.kills.total() * REQUESTS or await service.unfinished() < 10:
                        await requests.send()
                    await asyncio.sleep(0.02)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send_requests())
                tasks.create_task(faults.restart_postgres())
                for _ in range(WORKERS):
                    tasks.create_task(faults.kill_workers())
        with service.worker() as one, service.worker() as another:
            await wait_until(lambda: _is_empty(service), LIMIT_SECONDS)
            await one.stopped()
            await another.stopped()

    jobs = await service.fetch("SELECT id, name, state, attempts, payload->>'number' AS number FROM plinth_jobs")
    stored = {row["number"] for row in await service.fetch("SELECT number FROM requests")}
    ledger = [row["number"] for row in await service.fetch("SELECT number FROM ledger")]
    mails = [line.split() for line in (tmp_path / "mails").read_text().splitlines()]
    attempts = sum(job["attempts"] for job in jobs)
    figures = {
        "requests": f"{requests.sent}: {len(requests.committed)} committed, {len(requests.rolled_back)} rolled back, "
        f"{len(requests.unknown)} unknown, of which {len(requests.unknown & stored)} are stored",
        "kills": f"{faults.kills.total()}: " + ", ".join(f"{count} {point}" for point, count in faults.kills.items()),
        "restarts": str(faults.restarts),
        "jobs": f"{len(jobs)} in {attempts} attempts, {max(job['attempts'] for job in jobs)} at most",
        "effects": str(len(ledger)),
        "mails": f"{len(mails)} with {len({id for _, id in mails})} Message-IDs",
    }
    with capsys.disabled():
        print("", *(f"{name:10}{figure}" for name, figure in figures.items()), sep="\n")  # noqa: T201

    assert requests.committed <= stored
    assert not requests.rolled_back & stored
    assert sorted(ledger) == sorted(stored)
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert sorted((job["name"], int(job["number"])) for job in jobs) == sorted(
        (name, number) for name in ("effect", "mail") for number in stored
    )
    assert {(int(number), id) for number, id in mails} == {
        (int(job["number"]), f"<{job['id']}@example.com>") for job in jobs if job["name"] == "mail"
    }
    assert faults.kills == dict.fromkeys(POINTS, KILLS // len(POINTS))
    # Each claim is a new attempt. One whose answer was lost with its connection counts too.
    assert len({*service.claims}) == len(service.claims)
    counted = {job["id"]: job["attempts"] for job in jobs}
    assert all(attempt <= counted[id] for id, attempt in service.claims)


async def _is_empty(service: Service) -> bool:
    return await service.unfinished() == 0


async def test_a_worker_that_was_silent_settles_nothing(service: Service) -> None:
    """Its job is another's by then: the outcome of the first attempt must not end the second."""
    await _enqueue(service, "effect")
    with service.worker("returned", waits=True) as silent:
        await silent.announced("returned")
        with service.worker("effect") as another:
            await another.announced("effect")
            silent.proceed()
            await silent.announced("settled")
            assert await _jobs(service) == [("running", 2)]
            another.kill()
        silent.kill()
        with service.worker() as last:
            await wait_until(lambda: _is_empty(service), LIMIT_SECONDS)
            await last.stopped()
    assert await _jobs(service) == [("succeeded", 3)]
    assert len(await service.fetch("SELECT FROM ledger")) == 1


async def test_a_job_that_kills_every_worker_is_given_up_and_the_queue_goes_on(service: Service) -> None:
    await _enqueue(service, "poison")
    await _enqueue(service, "effect")
    for _ in range(3):
        with service.worker("poison") as worker:
            await worker.announced("poison")
            worker.kill()
    with service.worker("poison") as last:
        await wait_until(lambda: _is_empty(service), LIMIT_SECONDS)
        await last.stopped()
    [(reason,)] = await service.fetch("SELECT reason FROM plinth_jobs WHERE name = 'poison' AND state = 'dead'")
    assert reason == "Its process ended in attempt 3."
    assert await service.fetch("SELECT FROM plinth_jobs WHERE name = 'effect' AND state = 'succeeded'")
    assert len(await service.fetch("SELECT FROM ledger")) == 1


async def _enqueue(service: Service, name: str) -> None:
    statement = "INSERT INTO plinth_jobs (id, name, queue, payload) VALUES ($1, $2, 'fault_tests', '{\"number\": 1}')"
    await service.fetch(statement, uuid4(), name)


async def _jobs(service: Service) -> list[tuple[str, int]]:
    return [(row["state"], row["attempts"]) for row in await service.fetch("SELECT state, attempts FROM plinth_jobs")]
