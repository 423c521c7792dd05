"""`make run`: starts everything in order, prints the addresses, and leaves nothing running."""

import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from plinth.testing.postgres import DATABASE
from tests.tools.support import (
    NO_SERVERS,
    READY,
    ROOT,
    SUPERVISOR,
    Terminal,
    begin_request,
    command,
    outcome,
    plain_environment,
    running_in,
    stand_in,
    supervised,
)


def notes(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "notes").read_text().splitlines()]


def failed_run(directory: Path, **env: str) -> tuple[int, str, str]:
    """A run that fails to start: exit code, output, error."""
    app = stand_in(directory)
    environment = plain_environment(NOTES=str(directory / "notes"), **env)
    return outcome([sys.executable, "-c", SUPERVISOR, str(app)], directory, environment)


def address(terminal: Terminal) -> str:
    return terminal.read_until("  API ").split()[1]


def test_the_app_starts_after_its_servers_and_its_addresses_are_printed(tmp_path: Path) -> None:
    with supervised(tmp_path) as terminal:
        api = address(terminal)
        terminal.read_until(READY)
        assert "  Docs    " + api.replace("/api/products", "/docs") in terminal.printed
        assert "  Health  " + api.replace("/api/products", "/health/ready") in terminal.printed
        with urlopen(api) as answer:
            assert answer.status == 200
    commands = notes(tmp_path)
    assert [note["command"] for note in commands] == ["migrate", "seed", "dev"]
    for note in commands:
        assert note["DATABASE_URL"].startswith("postgresql://postgres@127.0.0.1:")
        assert note["DATABASE_URL"].endswith(f"/{DATABASE}")
        assert note["REDIS_URL"].startswith("redis://127.0.0.1:")
        assert note["APP_EXAMPLE_DATA"] == "true"


def test_other_shells_find_the_servers_that_run_and_those_alone(tmp_path: Path) -> None:
    file = tmp_path / ".data/servers.env"
    with supervised(tmp_path, REDIS_URL="redis://elsewhere/1") as terminal:
        port = address(terminal).removesuffix("/api/products").rpartition(":")[2]
        found = dict(line.split("=", 1) for line in file.read_text().splitlines())
        assert found == {"HOST": "127.0.0.1", "PORT": port, "DATABASE_URL": notes(tmp_path)[0]["DATABASE_URL"]}
    assert not file.exists()


def test_a_second_run_in_a_checkout_is_refused(tmp_path: Path) -> None:
    with supervised(tmp_path, **NO_SERVERS) as terminal:
        terminal.read_until(READY)
        code, _, error = failed_run(tmp_path)
        assert code == 1
        assert error == (f"A run in this checkout is using {tmp_path}/.data: stop it first (Ctrl-C in its terminal).\n")


def test_a_port_in_use_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, printed, error = failed_run(tmp_path, PORT=str(port))
    assert (code, printed) == (1, "")
    assert error == (
        f"Port {port} on 127.0.0.1 is in use: stop the program that listens there, or choose another port, as in "
        f"`make run PORT={port + 1}`.\n"
    )
    assert not (tmp_path / ".data" / "postgres").exists()


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"PORT": "web"}, "PORT=web is not a valid number"),
        ({"PORT": "65536"}, "PORT=65536 is not a valid number"),
        ({"HOST": "192.0.2.1"}, "192.0.2.1:0 is not available"),
        ({"FAIL": "migrate", **NO_SERVERS}, "`app migrate` failed (exit code 3): see its output above."),
        ({"FAIL": "dev", **NO_SERVERS}, "The app exited (code 3)."),
    ],
)
def test_a_failed_start_is_reported_in_one_sentence(tmp_path: Path, env: dict[str, str], sentence: str) -> None:
    code, _, error = failed_run(tmp_path, **env)
    assert code == 1
    assert error.startswith(sentence)
    assert error.count("\n") == 1
    assert not running_in(tmp_path / ".data")


def test_without_example_data_none_is_loaded_and_no_page_of_it_is_named(tmp_path: Path) -> None:
    program = stand_in(tmp_path)
    (tmp_path / "app/example_data.py").unlink()
    environment = plain_environment(NOTES=str(tmp_path / "notes"), APP_EXAMPLE_DATA="true", **NO_SERVERS)
    with command([sys.executable, "-c", SUPERVISOR, str(program)], tmp_path, environment) as terminal:
        terminal.read_until(READY)
        assert "  API  " not in terminal.printed
        assert "  Docs    http://127.0.0.1:" in terminal.printed
        os.killpg(terminal.pid, signal.SIGINT)
        assert terminal.end()[0] == 0
    assert [note["command"] for note in notes(tmp_path)] == ["migrate", "dev"]
    assert not any("APP_EXAMPLE_DATA" in note for note in notes(tmp_path))  # of which the app would warn


def test_a_worker_runs_beside_the_app_where_there_are_jobs(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/jobs.py").touch()
    with supervised(tmp_path, REDIS_URL="redis://elsewhere/1") as terminal:
        terminal.read_until("The worker runs. --reload")
        if READY not in terminal.printed:
            terminal.read_until(READY)
        assert running_in(tmp_path / ".data") == {"app", "postgres", "worker"}
        os.killpg(terminal.pid, signal.SIGINT)
        code, printed = terminal.end()
        assert code == 0
        assert printed.endswith("\nThe app has stopped.\nThe worker has stopped.\nStopped.\n")
        assert not running_in(tmp_path / ".data")
    commands = notes(tmp_path)
    assert [note["command"] for note in commands[:2]] == ["migrate", "seed"]
    assert {note["command"] for note in commands[2:]} == {"dev", "worker"}
    assert len({note["DATABASE_URL"] for note in commands}) == 1


def test_the_run_ends_with_its_worker(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/jobs.py").touch()
    code, _, error = failed_run(tmp_path, FAIL="worker", **NO_SERVERS)
    assert (code, error) == (1, "The worker exited (code 3).\n")
    assert not running_in(tmp_path / ".data")


def test_settings_come_from_the_dotenv_file_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOST=127.0.0.2\nAPP_EXAMPLE_DATA=false\nDATABASE_URL=postgresql://elsewhere/two\n")
    with supervised(tmp_path, REDIS_URL="redis://elsewhere/1") as terminal:
        assert address(terminal).startswith("http://127.0.0.2:")
    commands = notes(tmp_path)
    assert [note["command"] for note in commands] == ["migrate", "dev"]
    assert commands[0]["DATABASE_URL"] == "postgresql://elsewhere/two"
    assert commands[0]["REDIS_URL"] == "redis://elsewhere/1"


def test_the_real_app_serves_example_data_reloads_and_stops_during_a_request(tmp_path: Path) -> None:
    for name in ("app", "plinth", "migrations"):  # a copy, whose code can be changed
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    environment = plain_environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    with command([sys.executable, "-m", "tools.run"], tmp_path, environment) as terminal:
        api = address(terminal)
        terminal.read_until(READY)
        with urlopen(api) as answer:
            assert json.load(answer)["items"]
        with urlopen(api.replace("/api/products", "/docs")) as answer:
            assert answer.status == 200
        assert running_in(tmp_path / ".data") == {"app", "postgres", "valkey", "worker"}

        router = tmp_path / "app" / "routers" / "products.py"
        router.write_text(router.read_text().replace('"/api/products"', '"/api/goods"'))
        terminal.read_until("Application shutdown complete")
        with urlopen(api.replace("/api/products", "/api/goods")) as answer:
            assert answer.status == 200
        assert "prune_jobs" not in terminal.printed
        tasks = tmp_path / "app" / "tasks" / "__init__.py"
        tasks.write_text(tasks.read_text().replace('cron="20 3 * * *"', "every_seconds=1"))
        terminal.read_until("prune_jobs succeeded")

        with begin_request(api.replace("/api/products", "")):
            os.killpg(terminal.pid, signal.SIGINT)
            code, printed = terminal.end()
        assert code == 0
        assert "Traceback" not in printed
        assert printed.endswith("\nStopped.\n")
        assert not running_in(tmp_path / ".data")
