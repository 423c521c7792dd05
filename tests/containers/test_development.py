"""`docker compose up`: the API with reload, its servers and its data; and the same through PgBouncer."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from app.settings import AppSettings
from tests.containers.support import IMAGE, Compose, attempt, eventually, free_port

ROUTE = """

@router.get("/reloaded")
async def reloaded() -> str:
    return "yes"
"""
# These create roles or databases of their own or a replica, or silence the server message by message.
OF_A_SERVER = [
    f"--ignore=tests/plinth/database/{name}.py"
    for name in ("test_startup", "test_replica", "test_enums", "test_silence")
]
# These look at the server connection, which they share behind PgBouncer: its settings, locks, statements and end.
OF_A_SESSION = (
    "carries_the_name_and_the_limits or outlives_a_change_of_its_table or nothing_is_left_on_the_server "
    "or died_in_the_pool or lost_in_a_transaction or slow or parameters_reach_the_server or lock_that_is_held "
    "or planned_for_its_values or share_a_prepared_statement or server_that_only_reads"
)


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    ports = ("PORT", "LOCAL_POSTGRES_PORT", "LOCAL_REDIS_PORT", "LOCAL_PGBOUNCER_PORT")
    images = {"DEVELOPMENT_IMAGE": f"{IMAGE}-development", "PGBOUNCER_IMAGE": f"{IMAGE}-pgbouncer"}
    return {name: str(free_port()) for name in ports} | images | {"EDGE_NETWORK": "10.203.19"}


@pytest.fixture(scope="module")
def development(checkout: Path, environ: dict[str, str]) -> Iterator[Compose]:
    with Compose(checkout, "containers-test-development", environ=environ) as project:
        project("up", "--detach", "--build", "--wait")
        yield project


@pytest.fixture(scope="module")
def pooled(development: Compose) -> Compose:
    """The same project with PgBouncer in front of PostgreSQL."""
    environ = development.environ | {"POSTGRES_ADDRESS": "pgbouncer:6432"}
    project = Compose(development.folder, development.name, ["--profile=pgbouncer"], environ)
    project("up", "--detach", "--build", "--wait")
    return project


def ask(development: Compose, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{development.environ['PORT']}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        with refused:
            return refused.code, ""
    except OSError:
        return 0, ""


def test_it_serves_example_data(development: Compose) -> None:
    status, products = ask(development, "/api/products?limit=3")
    assert (status, len(json.loads(products)["items"])) == (200, 3)
    assert ask(development, "/docs")[0] == 200
    assert json.loads(ask(development, "/health/ready")[1])["status"] == "ready"


def test_a_change_of_the_code_is_served(development: Compose) -> None:
    file = development.folder / "app" / "routers" / "health.py"
    before = file.read_text()
    assert ask(development, "/health/reloaded")[0] == 404
    file.write_text(before + ROUTE)
    try:
        eventually(lambda: ask(development, "/health/reloaded") == (200, '"yes"'), "the change is served")
    finally:
        file.write_text(before)


def test_a_change_of_a_schedule_is_worked_on(development: Compose) -> None:
    file = development.folder / "app" / "tasks" / "__init__.py"
    before = file.read_text()
    logs = ["logs", "--no-log-prefix", "worker"]
    assert "prune_jobs" not in development(*logs)
    file.write_text(before.replace('cron="20 3 * * *"', "every_seconds=1"))
    try:
        eventually(lambda: "prune_jobs succeeded" in development(*logs), "the new schedule is worked on")
    finally:
        file.write_text(before)


def test_the_service_runs_behind_pgbouncer(pooled: Compose) -> None:
    assert "There is a catalogue already" in pooled("logs", "--no-log-prefix", "migrate")
    assert len(json.loads(ask(pooled, "/api/products?limit=100")[1])["items"]) == 100
    address = pooled.inside("pgbouncer", "hostname", "-i").split()[-1]
    sessions = f"SELECT FROM pg_stat_activity WHERE application_name = '{AppSettings().name}'"
    seen = f"SELECT EXISTS ({sessions} AND client_addr = '{address}')"
    assert pooled.inside("postgres", "psql", "--username=service", "--tuples-only", "--command", seen).strip() == "t"


def test_the_database_tests_pass_through_pgbouncer(
    pooled: Compose, record_property: Callable[[str, object], None]
) -> None:
    url = "postgresql://service:development@127.0.0.1:{}/service"
    environ = {
        "DATABASE_URL": url.format(pooled.environ["LOCAL_PGBOUNCER_PORT"]),
        "TEST_DATABASE_DIRECT_URL": url.format(pooled.environ["LOCAL_POSTGRES_PORT"]),
        "REDIS_URL": f"redis://127.0.0.1:{pooled.environ['LOCAL_REDIS_PORT']}/0",
    }
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:schemathesis"]
    options = ["--hypothesis-profile=ci", *OF_A_SERVER, f"-k=not ({OF_A_SESSION})"]
    code, output = attempt([*pytest_here, *options, "tests/plinth/database"], environ=environ)
    assert code == 0, output
    record_property("tests/plinth/database through PgBouncer", output.splitlines()[-1])


def test_a_password_that_differs_from_the_volumes_is_reported(checkout: Path, environ: dict[str, str]) -> None:
    """PostgreSQL reads POSTGRES_PASSWORD only when it initialises the volume."""
    environ = environ | {"LOCAL_POSTGRES_PORT": str(free_port())}
    with Compose(checkout, "containers-test-password", environ=environ) as project:
        project("run", "--build", "--rm", "migrate")
        project("down")
        changed = Compose(checkout, project.name, environ=environ | {"POSTGRES_PASSWORD": "another"})
        code, output = changed.attempt("run", "--rm", "migrate")
    messages = [line for line in output.splitlines() if not line.strip().startswith(("Container ", "Network "))]
    assert (code, len(messages)) == (1, 1), output
    assert "password" in messages[0]
    assert "volume" in messages[0]
