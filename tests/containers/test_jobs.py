"""Workers in containers: a release of a service whose requests enqueue jobs, and a database that goes away."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.containers.edge import ask
from tests.containers.support import CONFINED, IMAGE, Compose, attempt, docker, eventually
from tests.containers.test_production import REPLICAS

CLIENTS = 4
JOBS_DURING_ROLLOUT = 100
PRODUCTION_ENV = "JOB_GRACE_SECONDS=2\nJOB_CONCURRENCY=4\n"

JOB = """

class Record(BaseModel):
    release: int


RECORD = Job("record", Record)
"""
# Each attempt that begins is recorded at once, and each effect with the transaction that `once` guards.
TASK = """
import asyncio

from sqlalchemy import text

from app.dependencies import State
from app.jobs import RECORD, Record
from plinth.jobs import Run, once, task

RELEASE = {release}


@task(RECORD)
async def record(run: Run[State], payload: Record) -> None:
    sessions = run.state["database"].sessions
    values = {{"id": run.id, "release": RELEASE}}
    async with sessions.begin() as session:
        await session.execute(text("INSERT INTO begun VALUES (:id, :release)"), values)
    await asyncio.sleep(0.2 if RELEASE >= payload.release else 50)  # which only the end of the worker shortens
    async with sessions.begin() as session:
        if await once(session, run):
            await session.execute(text("INSERT INTO ledger VALUES (:id, :release)"), values)
"""
ROUTER = """
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.dependencies import JobsDep
from app.jobs import RECORD, Record

router = APIRouter(prefix="/api/records")


@router.post("", status_code=202)
async def enqueue(jobs: JobsDep, release: Annotated[int, Query()]) -> UUID:
    return await jobs.enqueue(RECORD, Record(release=release))
"""
DOCKERFILE = "FROM {image}\nCOPY app /srv/app\n"


def build_release(checkout: Path, folder: Path, release: int) -> str:
    """An image of this service with an endpoint and a job more."""
    app = folder / "app"
    for name in ("jobs.py", "tasks/__init__.py", "routers/__init__.py"):
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text((checkout / "app" / name).read_text())
    with (app / "jobs.py").open("a") as file:
        file.write(JOB)
    (app / "tasks/records.py").write_text(TASK.format(release=release))
    (app / "routers/records.py").write_text(ROUTER)
    with (app / "tasks/__init__.py").open("a") as file:
        file.write("from app.tasks import records\nTASKS = (*TASKS, records.record)\n")
    with (app / "routers/__init__.py").open("a") as file:
        file.write("from app.routers import records\nROUTERS = (records.router, *ROUTERS)\n")
    (folder / "Dockerfile").write_text(DOCKERFILE.format(image=IMAGE))
    docker("build", "--quiet", f"--tag={IMAGE}-release-{release}", str(folder))
    return f"{IMAGE}-release-{release}"


@pytest.fixture(scope="module")
def releases(production: Compose, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Compose]]:
    """Two releases of a service. The first runs, in three replicas and two workers."""
    images = [build_release(production.folder, tmp_path_factory.mktemp("release"), number) for number in (1, 2)]
    two_workers = production.environ | {"WORKER_REPLICAS": "2"}
    projects = [
        Compose(production.folder, production.name, production.options, two_workers | {"IMAGE": image})
        for image in images
    ]
    environment = production.folder / "production.env"
    limits = environment.read_text()
    environment.write_text(limits + PRODUCTION_ENV)
    try:
        projects[0]("up", "--detach", "--wait")
        for table in ("begun", "ledger"):
            query(production, f"CREATE TABLE {table} (job uuid, release int)")
        yield projects
    finally:
        environment.write_text(limits)
        production("up", "--detach", "--wait")
        query(production, "DROP TABLE IF EXISTS begun, ledger")


def query(production: Compose, statement: str) -> str:
    psql = ["psql", "--username=service", "--no-align", "--tuples-only", "--field-separator= ", "--command"]
    return production.inside("postgres", *psql, statement)


def workers(production: Compose) -> list[str]:
    return production.id("worker").split()


def enqueue(production: Compose, release: int = 1) -> str:
    """Enqueue a job that takes 0.2 s, or forever in a release before the given one. Returns its id."""
    status, _, body = ask(production, "POST", f"/api/records?release={release}")
    assert status == 202, body
    return str(json.loads(body))


def state(production: Compose, authorization: str, job: str) -> str:
    status, _, body = ask(production, "GET", f"/api/jobs/{job}", headers={"Authorization": authorization})
    assert status == 200, body
    return str(json.loads(body)["state"])


@dataclass
class Clients:
    """Each enqueues a job, asks until it has succeeded, and goes on with the next."""

    production: Compose
    authorization: str
    jobs: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator["Clients"]:
        stopping = threading.Event()
        threads = [threading.Thread(target=self._run, args=[stopping]) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stopping.set()
            for thread in threads:
                thread.join()

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                job = enqueue(self.production)
                self.jobs.append(job)
                eventually(partial(self._is_done, job), f"job {job} succeeds")
        except Exception as fault:
            self.faults.append(repr(fault))

    def _is_done(self, job: str) -> bool:
        return state(self.production, self.authorization, job) == "succeeded"


def test_a_rollout_of_servers_and_workers_loses_no_job(
    releases: list[Compose], authorization: str, record_property: Callable[[str, object], None]
) -> None:
    old, new = releases
    before = [*workers(old), *map(old.id, REPLICAS)]
    assert len(before) == 5
    with Clients(new, authorization).running() as clients:
        eventually(lambda: len(clients.jobs) >= CLIENTS, "every client has a job")
        long = enqueue(new, release=2)
        eventually(lambda: query(new, f"SELECT count(*) FROM begun WHERE job = '{long}'") == "1", "the long job begins")
        code, output = attempt(
            ["sh", "docker/roll.sh", f"--project-name={new.name}", *new.options], new.folder, new.environ
        )
        assert code == 0, output
        eventually(lambda: len(clients.jobs) >= JOBS_DURING_ROLLOUT or bool(clients.faults), "enough jobs")
    assert clients.faults == []
    assert not set(before) & {*workers(new), *map(new.id, REPLICAS)}
    assert len(workers(new)) == 2
    eventually(lambda: state(new, authorization, long) == "succeeded", "the long job succeeds")
    enqueued = sorted([*clients.jobs, long])
    rows = query(new, "SELECT id, state FROM plinth_jobs WHERE name = 'record' ORDER BY id").splitlines()
    assert rows == [f"{job} succeeded" for job in enqueued]
    assert query(new, "SELECT job FROM ledger ORDER BY job").split() == enqueued
    assert query(new, "SELECT DISTINCT release FROM ledger ORDER BY release").split() == ["1", "2"]
    # The worker that was stopped gave it back, which is no attempt.
    assert query(new, f"SELECT release FROM begun WHERE job = '{long}' ORDER BY release").split() == ["1", "2"]
    assert query(new, f"SELECT attempts FROM plinth_jobs WHERE id = '{long}'") == "1"
    record_property("jobs while servers and workers were replaced", f"{len(enqueued)}, all of them done once")


def test_a_worker_goes_on_when_the_database_is_back(releases: list[Compose], authorization: str) -> None:
    release = releases[0]

    def is_well(wanted: str) -> bool:
        return release.attempt("exec", "--no-TTY", "worker", "healthcheck.py", wanted)[0] == 0

    started = workers(release)
    assert is_well("ready")
    docker("kill", release.id("postgres"))
    eventually(lambda: not is_well("ready"), "the worker misses the database")
    assert is_well("alive")
    release("up", "--detach", "--no-deps", "--wait", "postgres")
    eventually(lambda: is_well("ready"), "the worker has found the database again")
    assert workers(release) == started
    eventually(lambda: ask(release, "GET", "/health/ready")[0] == 200, "the servers have found it, too")
    job = enqueue(release)
    eventually(lambda: state(release, authorization, job) == "succeeded", "the job succeeds")


def test_a_worker_that_is_silent_is_not_alive(production: Compose) -> None:
    script = "mkdir /dev/shm/worker && touch --date='31 seconds ago' /dev/shm/worker/alive-0 && healthcheck.py alive"
    code, output = attempt(["docker", "run", "--rm", *CONFINED, production.environ["IMAGE"], "sh", "-c", script])
    assert (code, output) == (1, "Process 0 of the worker has been silent for 31 s.")
    code, output = attempt(["docker", "run", "--rm", *CONFINED, production.environ["IMAGE"], "healthcheck.py", "ready"])
    assert (code, output) == (1, "[Errno 2] No such file or directory: '/dev/shm/worker'")


def test_one_container_serves_and_works(production: Compose) -> None:
    arguments = ["--env=WEB_CONCURRENCY=1", "--env=DATABASE_ALLOW_PLAINTEXT=true", "--env=HTTP_ALLOWED_HOSTS=*"]
    for name in ("app_secret_key", "database_url"):
        arguments.append(f"--volume={production.folder}/secrets/{name}:/run/secrets/{name}:ro")
    network = f"--network={production.name}_default"
    command = [production.environ["IMAGE"], "serve", "--with-worker"]
    identity = docker("run", "--detach", *CONFINED, network, *arguments, *command)
    try:
        for wanted in ("/health/ready", "alive", "ready"):
            healthcheck = ["docker", "exec", identity, "healthcheck.py", wanted]
            eventually(lambda check=healthcheck: attempt(check)[0] == 0, f"it is {wanted}")  # type: ignore[misc]
        docker("stop", "--time=40", identity)
        assert docker("inspect", "--format={{.State.ExitCode}}", identity) == "0", docker("logs", identity)
    finally:
        docker("rm", "--force", "--volumes", identity)
