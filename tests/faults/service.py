"""All that the faults need: PostgreSQL, Valkey, proxies to them, Gunicorn with two workers, a worker, and a mailbox."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from plinth.testing.environment import ROOT, child_environment
from plinth.testing.locks import held
from plinth.testing.migrations import migrate
from plinth.testing.network import reserved_port
from plinth.testing.postgres import Postgres
from plinth.testing.servers import POSTGRES_VERSION
from tests.faults.ledger import Ledger, effect_faults
from tests.faults.mailbox import Mailbox
from tests.faults.proxy import Proxy
from tests.faults.redis_server import restartable_server
from tests.faults.scraping import scrape, until
from tests.faults.serving import LIMIT_SECONDS, served
from tests.faults.traffic import CACHED, ROWS, Traffic

HAS_JOBS = (ROOT / "app/jobs.py").exists()  # a project that has taken them out has no tables for them
GUNICORN = ("gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "tests.faults.fault_app:app")
WORKERS = 2
DEADLINE_SECONDS = 3
SLOW_CLIENT_SECONDS = 2
USER = "fault_service"
"""An ordinary one: superusers are exempt from limits of connections."""
ROLE = f"CREATE ROLE {USER} LOGIN; ALTER DATABASE service OWNER TO {USER}"
BACKENDS = f"SELECT state, count(*)::int FROM pg_stat_activity WHERE usename = '{USER}' GROUP BY state"
TABLES = f"""
    CREATE TABLE fault_notes (id bigint PRIMARY KEY, text text NOT NULL);
    INSERT INTO fault_notes SELECT n, repeat(md5(n::text), 4) FROM generate_series(0, {ROWS}) AS n;
    CREATE TABLE fault_writes (number bigint NOT NULL, job uuid);
    CREATE TABLE fault_effects (number bigint NOT NULL, job uuid NOT NULL)
"""
"""Of fault_app.py. Without any constraint: what is stored twice has to be seen."""
UNFINISHED = "SELECT count(*)::int FROM plinth_jobs WHERE state <> 'succeeded'"
MOST_BACKENDS = 60  # of the pools of two workers and of the worker


class Service:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """All of it ends with the stack."""
        self.ledger = Ledger()
        self.postgres_data = folder / "postgres"
        self._next = 0
        self.mails = Mailbox(stack) if HAS_JOBS else None
        port = stack.enter_context(reserved_port())
        self.postgres = Postgres(folder, int(os.environ.get("PG", POSTGRES_VERSION)), durable=True, port=port)
        stack.callback(self.postgres.process.stop)
        self.onlooker_url = self.postgres.start()
        self.execute(ROLE)
        ours = f"postgresql://{USER}@127.0.0.1:{port}/service"
        migrate(ours)
        self.execute(TABLES, url=ours)
        self.redis = stack.enter_context(restartable_server(folder / "valkey"))
        self.database_proxy = stack.enter_context(Proxy(port))
        self.redis_proxy = stack.enter_context(Proxy(self.redis.port))
        self._metrics_port = stack.enter_context(reserved_port())
        environment = {
            "DATABASE_URL": f"postgresql://{USER}@127.0.0.1:{self.database_proxy.port}/service",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_proxy.port}/0",
            "HTTP_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
            "SERVER_HEADER_TIMEOUT_SECONDS": str(SLOW_CLIENT_SECONDS),
            "SERVER_BODY_TIMEOUT_SECONDS": str(SLOW_CLIENT_SECONDS),
            "SERVER_SEND_TIMEOUT_SECONDS": str(SLOW_CLIENT_SECONDS),
            "SERVER_DRAIN_SECONDS": "0",
            "DATABASE_EXPLAIN_SLOW": "false",
            "LOG_SAMPLE": "0",
        }
        if self.mails:
            mail = {"BACKEND": "smtp", "HOST": "127.0.0.1", "PORT": str(self.mails.port), "TLS": "none"}
            mail |= {"SENDER": "service@example.com"}
            environment |= {f"MAIL_{name}": value for name, value in mail.items()}
            self._start_worker(folder, stack, environment)
        self.server = stack.enter_context(
            served(GUNICORN, folder, WORKERS, None, METRICS_PORT=str(self._metrics_port), **environment)
        )
        self.port = int(urlsplit(self.server.address).port or 0)

    def _start_worker(self, folder: Path, stack: ExitStack, environment: dict[str, str]) -> None:
        status = folder / "status"
        variables = child_environment(JOB_STATUS_FOLDER=str(status), **environment)
        argv = [sys.executable, "-m", "tests.faults.fault_worker"]
        log = stack.enter_context((folder / "worker.log").open("wb"))
        self.worker = subprocess.Popen(argv, cwd=folder, env=variables, stdout=log, stderr=log)
        stack.callback(self.worker.wait, LIMIT_SECONDS)
        stack.callback(self.worker.kill)
        until((status / "ready-0").exists)

    def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Ask PostgreSQL itself, as a superuser."""

        async def fetch() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.onlooker_url)
            try:
                return list(await connection.fetch(statement, *arguments))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def execute(self, script: str, url: str = "") -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(url or self.onlooker_url)
            try:
                await connection.execute(script)
            finally:
                await connection.close()

        asyncio.run(execute())

    @contextmanager
    def traffic(self, rate: float) -> Iterator[Traffic]:
        """The writes of it are in the ledger afterwards."""
        mix = "faults" if HAS_JOBS else "without jobs"
        with Traffic(self.port, mix, rate, self._next) as traffic:
            yield traffic
        self._next = 1 + max((answer.number for answer in traffic.answers), default=self._next)
        self.ledger.add(traffic.answers)

    def capacity(self, seconds: float = 3.0) -> float:
        """Requests that are answered in a second, by a closed loop."""
        self.warm()
        with self.traffic(0) as traffic:
            sleep(seconds)
        return sum(answer.is_good for answer in traffic.answers) / seconds

    def warm(self) -> None:
        """Load what is cached into the memory of both workers, by a connection to each that serves it."""
        warm: set[int] = set()
        for _ in range(200):
            with self.connect() as connection:
                worker = int(get(connection, "/worker"))
                if worker not in warm:
                    for id in range(CACHED):
                        get(connection, f"/cached/{id}")
                        get(connection, f"/expiring/{id}")
                    warm.add(worker)
            if warm == set(self.server.workers()):
                return
        raise AssertionError(f"Only {warm} of {self.server.workers()} accept connections")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), LIMIT_SECONDS)

    def stored(self) -> list[int]:
        return [row["number"] for row in self.fetch("SELECT number FROM fault_writes")]

    def wait_until_jobs_are_done(self) -> None:
        if self.mails:
            until(lambda: not self.fetch(UNFINISHED)[0][0])

    def job_faults(self) -> dict[str, list[object]]:
        """What must not be of the jobs that were enqueued with writes."""
        if not self.mails:
            return {}
        jobs = {row["number"]: row["job"] for row in self.fetch("SELECT * FROM fault_writes WHERE job IS NOT NULL")}
        effects = [(row["number"], row["job"]) for row in self.fetch("SELECT * FROM fault_effects")]
        return effect_faults(jobs, effects, self.mails.received)

    def wait_until_idle(self) -> None:
        """No connection is in use or waited for, and PostgreSQL has no other backend of ours than those of pools."""
        until(lambda: self.pools_in_use() == 0)
        until(lambda: self._is_idle({row["state"]: row["count"] for row in self.fetch(BACKENDS)}))

    def _is_idle(self, backends: dict[str, int]) -> bool:
        return set(backends) <= {"idle"} and sum(backends.values()) <= MOST_BACKENDS

    def pools_in_use(self) -> float:
        samples = scrape(f"http://127.0.0.1:{self._metrics_port}/metrics")
        return sum(value for name in ("used", "waiting") for _, value in samples.get(f"database_pool_{name}", []))


def get(connection: socket.socket, path: str) -> bytes:
    """The body of a short answer."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    data = b""
    while True:
        data += connection.recv(65536)
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split()[0]):
            assert b" 200 " in head[:20], data
            return body


@contextmanager
def running(folder: Path) -> Iterator[Service]:
    with held(folder), ExitStack() as stack:
        yield Service(folder, stack)
