"""Whatever the service starts writes the same lines: each process is started for real, as production starts it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from plinth.testing.environment import ROOT, child_environment
from tests.faults.serving import Serve
from tests.faults.serving import serve as app_serve

__all__ = ["app_serve"]

PRODUCTION = {
    "APP_ENV": "production",
    "APP_NAME": "Shop",
    "APP_SECRET_KEY": "k" * 32,
    "HTTP_ALLOWED_HOSTS": "127.0.0.1",
    "DATABASE_ALLOW_PLAINTEXT": "true",
    "DATABASE_UNKNOWN": "1",  # of which each start warns
}


def parsed(output: str) -> list[dict[str, Any]]:
    """The lines, each of which has to be JSON."""
    lines = [json.loads(line) for line in output.splitlines()]
    assert all(line["service"] == "Shop" and line["level"] and line["timestamp"] and line["event"] for line in lines)
    return lines


@pytest.fixture
def environment(database_url: str, redis_url: str) -> dict[str, str]:
    return child_environment(**PRODUCTION, DATABASE_URL=database_url, REDIS_URL=redis_url)


@pytest.mark.parametrize(
    ("command", "logger"),
    [
        (("app", "check", "--lenient"), "plinth.cli"),
        (("app", "migrate"), "alembic.runtime.migration"),
        (("alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"), "alembic.runtime.migration"),
    ],
    ids=["check", "migrate", "alembic"],
)
def test_a_command_logs_json(
    tmp_path: Path, environment: dict[str, str], command: tuple[str, ...], logger: str
) -> None:
    argv = [sys.executable, "-m", *command]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert logger in {line["logger"] for line in parsed(done.stdout)}


def test_a_worker_logs_json(tmp_path: Path, environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "app", "worker"]
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first = process.stdout.readline()
        process.terminate()
        rest = process.stdout.read()
    assert parsed(first + rest)


def test_a_server_logs_json(app_serve: Serve) -> None:
    with app_serve(**PRODUCTION) as server:
        urlopen(f"{server.address}/api/categories", timeout=60).close()
        server.wait_for('"event":"request"')
        server.process.terminate()
        lines = parsed(server.wait_until_exited())
    assert {line["logger"] for line in lines} >= {"plinth.cli", "gunicorn.error", "uvicorn.error", "app.access"}
    [request] = [line for line in lines if line["event"] == "request"]
    assert (request["route"], request["status"], request["queries"]) == ("/api/categories", 200, 1)
