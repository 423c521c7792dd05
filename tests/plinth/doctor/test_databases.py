"""PostgreSQL: each cause of a refusal told apart, and what is wrong with one that answers."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from plinth.database import DatabaseSettings
from plinth.doctor import database
from plinth.doctor.database import databases
from plinth.doctor.findings import Finding
from plinth.settings import Settings
from plinth.testing.network import reserved_port
from plinth.testing.postgres import Postgres
from plinth.testing.servers import POSTGRES_VERSION
from tests.plinth.doctor.support import execute, levels, listed, the_one

PASSWORD_LINE = "host all ada all scram-sha-256"


def with_urls(settings: Settings, **urls: str) -> Settings:
    database = DatabaseSettings(**{name: SecretStr(url) for name, url in urls.items()}, connect_timeout_seconds=20)
    return settings.model_copy(update={"database": database})


def changed(url: str, **parts: Any) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)


def examined(settings: Settings, has_jobs: bool = False, **urls: str) -> list[Finding]:
    return asyncio.run(listed(databases(with_urls(settings, **urls), has_jobs)))


def refused(settings: Settings, url: str) -> Finding:
    finding = the_one(examined(settings, url=url))
    assert (finding.check, finding.level) == ("database", "error")
    assert finding.sentence.startswith("DATABASE_URL: ")
    return finding


@contextmanager
def own_postgres(directory: Path) -> Iterator[tuple[Postgres, str]]:
    with ExitStack() as stack:
        postgres = Postgres(directory, POSTGRES_VERSION, False, stack.enter_context(reserved_port()))
        stack.callback(postgres.process.stop)
        yield postgres, postgres.start()


@pytest.fixture(scope="module")
def own_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own, on which the role `ada` needs a password."""
    with own_postgres(tmp_path_factory.mktemp("postgres")) as (_, url):
        execute(url, "CREATE ROLE ada LOGIN PASSWORD 'right'")
        let_in(url, PASSWORD_LINE, "host all all all trust")
        yield url


def let_in(url: str, *lines: str) -> None:
    async def change() -> None:
        connection = await asyncpg.connect(url)
        file = await connection.fetchval("SHOW hba_file")
        rows = ", ".join(f"('{line}')" for line in lines)
        await connection.execute(f"COPY (SELECT * FROM (VALUES {rows}) AS lines) TO '{file}'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    asyncio.run(change())


@pytest.mark.parametrize(
    ("parts", "sentence", "mend"),
    [
        ({"port": 1}, "no PostgreSQL accepts connections at 127.0.0.1:1 (connection refused)", "Start it, or check"),
        ({"host": "nowhere.invalid"}, "cannot be resolved", "Check the host in DATABASE_URL"),
        ({"database": "missing"}, "has no database 'missing'", "createdb --host=127.0.0.1 --port="),
        ({"username": "nobody"}, "does not admit the user 'nobody'", "Correct the user in DATABASE_URL"),
        ({"query": {"sslmode": "require"}}, "there is no TLS with PostgreSQL", "sslmode=disable"),
        ({"query": {"options": "-c nonsense=1"}}, "refuses the connection", "Check DATABASE_URL"),
    ],
)
def test_each_cause_of_a_refusal_is_told_apart(
    settings: Settings, database_url: str, parts: dict[str, Any], sentence: str, mend: str
) -> None:
    finding = refused(settings, changed(database_url, **parts))
    assert sentence in finding.sentence
    assert mend in (finding.mend or "")


def test_where_nothing_is_configured_the_servers_of_development_are_named(settings: Settings) -> None:
    with reserved_port(port=5432) as port:
        finding = refused(settings, f"postgresql://postgres@127.0.0.1:{port}/shop")
    assert "no PostgreSQL runs at 127.0.0.1:5432, the default (connection refused)" in finding.sentence
    assert "`make run`" in (finding.mend or "")
    assert "`docker compose up`" in (finding.mend or "")


def test_a_wrong_password_names_the_old_volume_and_what_its_removal_deletes(settings: Settings, own_url: str) -> None:
    wrong = changed(own_url, username="ada", password="wrong")
    while not (found := [each for each in examined(settings, url=wrong) if each.level == "error"]):
        pass  # until the server has read its file again
    assert "refuses the password of 'ada'" in found[0].sentence
    mend = found[0].mend or ""
    assert "`ALTER ROLE ada PASSWORD '…'`" in mend
    assert "ALL ITS DATA by `docker compose down --volumes`" in mend
    assert "wrong" not in found[0].sentence + mend
    right = examined(settings, url=changed(own_url, username="ada", password="right"))
    assert set(levels(right).values()) == {"ok"}


def test_a_server_without_a_free_connection(settings: Settings, own_url: str) -> None:
    execute(own_url, "CREATE ROLE busy LOGIN CONNECTION LIMIT 0")
    finding = refused(settings, changed(own_url, username="busy"))
    assert "has no connection left" in finding.sentence
    assert "pg_stat_activity" in (finding.mend or "")


def test_a_server_that_stops(settings: Settings, tmp_path: Path) -> None:
    with own_postgres(tmp_path) as (postgres, url):

        async def stopping() -> Finding:
            held = await asyncpg.connect(url)  # which a smart shutdown waits for
            os.kill(postgres.process.pid or 0, signal.SIGTERM)
            while True:
                found = await listed(databases(with_urls(settings, url=url), False))
                if errors := [each for each in found if each.level == "error"]:
                    break
            await held.close()
            return the_one(errors)

        finding = asyncio.run(stopping())
    assert "starts or stops" in finding.sentence
    assert "Wait" in (finding.mend or "")


def test_a_server_that_never_answers(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        patient = with_urls(settings, url=f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/db")
        patient.database.connect_timeout_seconds = 0.2
        finding = the_one(asyncio.run(listed(databases(patient, False))))
    assert "does not answer within 0.2 s" in finding.sentence
    assert "firewalls" in (finding.mend or "")


def test_each_url_is_examined(settings: Settings, database_url: str) -> None:
    away = changed(database_url, port=1)
    found = examined(settings, url=database_url, direct_url=away, replica_url=database_url)
    assert [each.level for each in found if each.check == "database"] == ["ok", "error", "ok", "warning"]
    assert found[1].sentence.startswith("DATABASE_DIRECT_URL: ")
    assert "is no standby" in found[-1].sentence


def test_a_version_that_is_too_old(settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert the_one(examined(settings, url=database_url), "database").level == "ok"
    monkeypatch.setattr("plinth.doctor.reaching.OLDEST_VERSION", 99)
    finding = the_one(examined(settings, url=database_url), "database")
    assert (finding.level, "older than 99" in finding.sentence) == ("error", True)


@pytest.mark.parametrize(
    ("seconds", "level", "direction"),
    [
        (0, "ok", "agree"),
        (-1, "ok", "agree"),
        (10, "warning", "ahead of"),
        (-10, "warning", "behind"),
        (99, "error", ""),
    ],
)
def test_clocks_that_differ(
    settings: Settings, empty_database_url: str, seconds: int, level: str, direction: str
) -> None:
    skewed = f"SELECT pg_catalog.clock_timestamp() + interval '{seconds} s'"
    execute(
        empty_database_url,
        "CREATE SCHEMA skewed",
        f"CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $${skewed}$$",
    )
    url = changed(empty_database_url, query={"options": "--search_path=skewed,pg_catalog"})
    finding = the_one(examined(settings, url=url), "clock")
    assert (finding.level, direction in finding.sentence) == (level, True)


@pytest.mark.parametrize("has_jobs", [True, False])
def test_the_connections_of_all_processes_must_fit(settings: Settings, database_url: str, has_jobs: bool) -> None:
    async def available() -> int:
        connection = await asyncpg.connect(database_url)
        most, kept, reserved = [
            int(await connection.fetchval(f"SHOW {name}"))
            for name in ("max_connections", "superuser_reserved_connections", "reserved_connections")
        ]
        await connection.close()
        return most - kept - reserved

    of_jobs = 2 * (4 + 5 + 1 + 1) if has_jobs else 0
    spare = asyncio.run(available()) - of_jobs - (4 + 5 + 1 + 1)
    job = settings.job.model_copy(update={"processes": 2})
    for exports, level in ((spare, "ok"), (spare + 1, "warning")):
        tight = with_urls(settings, url=database_url).model_copy(update={"web_concurrency": 1, "job": job})
        sizes = {"pool_size": 4, "read_pool_size": 5, "exports": exports}
        tight.database = tight.database.model_copy(update=sizes)
        finding = the_one(asyncio.run(listed(databases(tight, has_jobs))), "connections")
        assert finding.level == level, finding
        assert ("JOB_PROCESSES=2" in finding.sentence) == has_jobs
    pooled = examined(settings, url=changed(database_url, query={"pgbouncer": "true"}))
    assert "to a pooler" in the_one(pooled, "connections").sentence


def add_job(url: str, state: str, waited_seconds: int) -> str:
    queue = f"q{uuid4().hex}"
    execute(
        url,
        "INSERT INTO plinth_jobs (id, name, queue, state, payload, run_at) VALUES"
        f" (gen_random_uuid(), 'work', '{queue}', '{state}', '{{}}', now() - interval '{waited_seconds} s')",
    )
    return queue


@contextmanager
def a_worker_connection(url: str) -> Iterator[None]:
    """What a worker process holds."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url, server_settings={"application_name": "worker"}))
        yield
        runner.run(connection.close())


def of_queue(found: list[Finding], queue: str) -> list[Finding]:
    return [each for each in found if each.check == "jobs" and f"'{queue}'" in each.sentence]


def test_dead_jobs_are_found(settings: Settings, database_url: str) -> None:
    queue = add_job(database_url, "dead", 0)
    finding = the_one(of_queue(examined(settings, True, url=database_url), queue))
    assert (finding.level, finding.sentence) == ("warning", f"The queue '{queue}' has dead jobs: 1.")
    assert (finding.mend or "").startswith(f"app jobs list --state dead --queue {queue};")
    assert of_queue(examined(settings, False, url=database_url), queue) == []


def test_jobs_that_wait_for_long_are_found(settings: Settings, database_url: str) -> None:
    recent, old = add_job(database_url, "queued", 30), add_job(database_url, "queued", 90)
    found = examined(settings, True, url=database_url)
    assert of_queue(found, recent) == []
    finding = the_one(of_queue(found, old))
    assert (finding.level, finding.mend) == ("error", "app worker")
    with a_worker_connection(database_url):
        assert the_one(of_queue(examined(settings, True, url=database_url), old)).level == "warning"


def test_without_the_tables_of_jobs_the_migrations_are_what_is_missing(
    settings: Settings, empty_database_url: str
) -> None:
    assert "jobs" not in levels(examined(settings, True, url=empty_database_url))


def test_a_queue_in_order(settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(database_url, "TRUNCATE plinth_jobs CASCADE")
    finding = the_one(examined(settings, True, url=database_url), "jobs")
    assert (finding.level, finding.sentence.endswith("worker processes: 0.")) == ("ok", True)
    monkeypatch.setattr(database, "WORKERS", "SELECT 1 / 0")
    assert the_one(examined(settings, True, url=database_url), "jobs").level == "error"
