"""Gunicorn with our workers, as `app serve` starts it: real processes, signals and sockets."""

import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import orjson
import pytest

from app.config import get_settings
from app.server import Worker
from tests.environment import ROOT, child_environment
from tests.tools.support import BODY, begin_request

LISTENING = r"Listening at: (http://[^\s\"]+)"
STARTED = "Application startup complete"


class Served:
    """A running `app serve`, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def wait_for(self, pattern: str, times: int = 1) -> str:
        assert self.process.stdout is not None
        while len(found := re.findall(pattern, self.said)) < times:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        return str(found[0])

    def to_the_end(self) -> str:
        self.said += self.process.communicate()[0]
        return self.said


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def served(directory: Path, database_url: str, redis_url: str, **environment: str) -> Iterator[Served]:
    addresses = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PORT": "0", "WEB_CONCURRENCY": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve"],
        cwd=directory,
        env=child_environment(**addresses | {"SERVER_DRAIN_SECONDS": "0"} | environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a killed master would leave its workers behind
    )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    deadline = threading.Timer(30, kill)  # a test that hangs tells nothing
    deadline.start()
    try:
        yield Served(process)
    finally:
        deadline.cancel()
        kill()
        with process:  # closes what is open of it, and waits
            pass


def test_it_serves_with_the_workers_asked_for_and_stops_cleanly(
    directory: Path, database_url: str, redis_url: str
) -> None:
    workers = {"WEB_CONCURRENCY": "2", "LOG_FORMAT": "json"}
    with served(directory, database_url, redis_url, **workers) as server:
        address = server.wait_for(LISTENING)
        server.wait_for(STARTED, times=2)
        answer = httpx.get(f"{address}/api/products")
        assert answer.status_code == 200
        assert "Server" not in answer.headers
        server.process.send_signal(signal.SIGTERM)
        said = server.to_the_end()
        assert server.process.returncode == 0
        assert said.count("Application shutdown complete") == 2
        assert {orjson.loads(line)["level"] for line in said.splitlines()} == {
            "INFO"
        }  # the master's lines are JSON too


def test_a_request_in_flight_is_answered_before_it_stops(directory: Path, database_url: str, redis_url: str) -> None:
    with served(directory, database_url, redis_url) as server:
        address = server.wait_for(LISTENING)
        server.wait_for(STARTED)
        with begin_request(address) as client:
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("Shutting down")
            client.sendall(BODY)
            assert client.recv(100_000).startswith((b"HTTP/1.1 201", b"HTTP/1.1 409"))
        server.to_the_end()
        assert server.process.returncode == 0


def test_asked_to_stop_it_tells_so_for_a_while_and_goes_on_serving(
    directory: Path, database_url: str, redis_url: str
) -> None:
    with served(directory, database_url, redis_url, SERVER_DRAIN_SECONDS="20") as server:
        address = server.wait_for(LISTENING)
        server.wait_for(STARTED)
        assert httpx.get(f"{address}/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("Handling signal: term")
        while (answer := httpx.get(f"{address}/health/ready")).status_code == 200:
            pass
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert httpx.get(f"{address}/api/products").status_code == 200
        server.process.send_signal(signal.SIGINT)  # in a hurry after all
        server.to_the_end()


def test_a_request_that_does_not_end_is_cut_off_without_a_traceback(
    directory: Path, database_url: str, redis_url: str
) -> None:
    with served(directory, database_url, redis_url, SERVER_GRACEFUL_TIMEOUT_SECONDS="2") as server:
        address = server.wait_for(LISTENING)
        server.wait_for(STARTED)
        with begin_request(address):
            server.process.send_signal(signal.SIGTERM)
            said = server.to_the_end()
        assert server.process.returncode == 0
        assert "A request was cut off" in said
        assert "Application shutdown complete" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("trusted", [True, False])
def test_forwarded_headers_are_believed_only_from_the_trusted_proxy(
    directory: Path, database_url: str, redis_url: str, trusted: bool
) -> None:
    proxies = {"HTTP_TRUSTED_PROXIES": "127.0.0.1" if trusted else "10.0.0.1", "HTTP_REDIRECT_HTTPS": "true"}
    with served(directory, database_url, redis_url, **proxies) as server:
        address = server.wait_for(LISTENING)
        server.wait_for(STARTED)
        answer = httpx.get(f"{address}/api/products", headers={"X-Forwarded-Proto": "https"})
        assert answer.status_code == (200 if trusted else 308)
        assert ("Strict-Transport-Security" in answer.headers) == trusted


@pytest.mark.parametrize(
    ("name", "value", "setting", "expected"),
    [
        ("WEB_CONCURRENCY", "3", "workers", 3),
        ("PORT", "9000", "bind", "127.0.0.1:9000"),
        ("HOST", "::1", "bind", "[::1]:8000"),
        ("SERVER_MAX_REQUESTS", "500", "max_requests", 500),
        ("SERVER_MAX_REQUESTS_JITTER", "50", "max_requests_jitter", 50),
        ("SERVER_TIMEOUT_SECONDS", "17", "timeout", 17),
        ("SERVER_GRACEFUL_TIMEOUT_SECONDS", "18", "graceful_timeout", 18),
        ("SERVER_KEEP_ALIVE_SECONDS", "19", "keepalive", 19),
        ("HTTP_TRUSTED_PROXIES", "10.0.0.1", "forwarded_allow_ips", "10.0.0.1"),
        ("APP_NAME", "Shop", "proc_name", "Shop"),
        ("APP_NAME", "Shop", "control_socket_disable", True),
    ],
)
def test_gunicorn_takes_its_numbers_from_the_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, setting: str, expected: object
) -> None:
    monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    try:
        assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))[setting] == expected
    finally:
        get_settings.cache_clear()


def test_a_worker_runs_uvicorn_as_it_is_fastest_and_leaves_in_time() -> None:
    options = Worker.CONFIG_KWARGS
    assert (options["loop"], options["http"], options["access_log"]) == ("uvloop", "httptools", False)
    server = get_settings().server
    assert server.drain_seconds + int(str(options["timeout_graceful_shutdown"])) < server.graceful_timeout_seconds
