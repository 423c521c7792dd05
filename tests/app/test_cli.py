import json
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest

from plinth.testing.environment import child_environment


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=tempfile.gettempdir(),
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def counts(onlooker: asyncpg.Connection) -> tuple[int, int]:
    row = await onlooker.fetchrow("SELECT (SELECT count(*) FROM categories), (SELECT count(*) FROM products)")
    return tuple(row)


async def test_seed_loads_ten_thousand_products_once(
    empty_tables: None, database_url: str, onlooker: asyncpg.Connection
) -> None:
    # However long the COPY takes: a request's limit is not for it.
    limit = {"DATABASE_STATEMENT_TIMEOUT_SECONDS": "0.05"}
    first = run("seed", DATABASE_URL=database_url, APP_EXAMPLE_DATA="true", **limit)
    assert first.stdout == "Loaded 10,000 products.\n", first.stderr
    loaded = await counts(onlooker)
    assert loaded == (loaded[0], 10_000)
    assert await onlooker.fetchval("SELECT count(*) FROM products WHERE name LIKE '%Laptop%'") > 1000
    again = run("seed", DATABASE_URL=database_url, APP_EXAMPLE_DATA="true")
    assert (again.returncode, again.stdout) == (0, "There is a catalogue already; nothing was loaded.\n")
    assert await counts(onlooker) == loaded


async def test_seed_is_refused_unless_example_data_is_on(
    empty_tables: None, database_url: str, onlooker: asyncpg.Connection
) -> None:
    refused = run("seed", DATABASE_URL=database_url, APP_EXAMPLE_DATA="false")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Example data is off; set APP_EXAMPLE_DATA=true to load it.\n"
    assert await counts(onlooker) == (0, 0)


@pytest.mark.parametrize("command", ["dev", "migrate", "seed", "serve"])
def test_an_unreachable_database_is_reported_in_one_sentence(command: str) -> None:
    environment = {"APP_EXAMPLE_DATA": "true", "DATABASE_WAIT_SECONDS": "0", "LOG_LEVEL": "WARNING"}
    done = run(command, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", **environment)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "database" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["migrate", "seed"])
async def test_what_needs_a_session_of_its_own_goes_past_the_pooler(
    empty_tables: None, database_url: str, command: str
) -> None:
    pooler = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "DATABASE_DIRECT_URL": database_url}
    done = run(command, APP_EXAMPLE_DATA="true", **pooler)
    assert done.returncode == 0, done.stderr


def test_migrating_to_an_unknown_revision_is_reported_in_one_sentence(database_url: str) -> None:
    done = run("migrate", "nonsense", DATABASE_URL=database_url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_drain_makes_the_file_that_the_server_looks_for(tmp_path: Path) -> None:
    file = tmp_path / "drain"
    assert run("drain", SERVER_DRAIN_FILE=str(file), SERVER_DRAIN_SECONDS="0").returncode == 0
    assert file.exists()
    for wrong, message in (("", "set SERVER_DRAIN_FILE"), (str(tmp_path / "no" / "folder"), "cannot be written")):
        refused = run("drain", SERVER_DRAIN_FILE=wrong)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_openapi_prints_the_document() -> None:
    document = json.loads(run("openapi").stdout)
    assert document["openapi"].startswith("3.1")
    assert "/api/products/{id}" in document["paths"]


def test_help_lists_the_commands() -> None:
    shown = run("--help").stdout
    for command in ("check", "serve", "dev", "migrate", "seed", "openapi"):
        assert f" {command} " in shown
