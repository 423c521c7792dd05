"""Gunicorn with plinth's workers: what it serves, and how it stops."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest
from gunicorn.arbiter import Arbiter

from app.settings import get_settings
from plinth.testing.environment import ROOT, child_environment
from tests.plinth.serving.conftest import STOPPING, Serve, own_app
from tests.tools.support import BODY, begin_request

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"


def test_it_serves_with_the_configured_workers_and_stops_cleanly(app_serve: Serve) -> None:
    with app_serve(workers=2, LOG_FORMAT="json") as server:
        answer = httpx.get(f"{server.address}/openapi.json")
        assert answer.status_code == 200
        assert "Server" not in answer.headers
        server.process.send_signal(signal.SIGTERM)
        lines = [orjson.loads(line) for line in server.wait_until_exited().splitlines()]
        assert server.process.returncode == 0
        assert [line["message"] for line in lines].count("Application shutdown complete.") == 2
        assert {line["logger"].split(".")[0] for line in lines} >= {"app", "gunicorn", "plinth", "uvicorn"}
        unusual = [line for line in lines if line["level"] != "INFO"]
        # The document is made in the event loop, which takes long on a busy machine.
        assert [line for line in unusual if "event loop" not in line["message"]] == []


def test_a_request_in_progress_is_answered_before_it_stops(serve: Serve) -> None:
    with own_app(serve) as server:
        with begin_request(server.address, "/names") as client:
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(STOPPING)
            client.sendall(BODY)
            assert client.recv(100_000).startswith(b"HTTP/1.1 201")
        server.wait_until_exited()
        assert server.process.returncode == 0


def test_connections_end_with_an_announced_close_or_after_they_were_idle(serve: Serve) -> None:
    with serve() as server:
        used, fresh, idle = (server.connect() for _ in range(3))
        with used, fresh, idle:
            for client in (used, idle):
                client.sendall(REQUEST)
                answer = b""
                while not answer.endswith(b"}"):
                    answer += client.recv(10_000)
                assert b"connection: close" not in answer
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("Shutting down; 3 connections are open.")
            for client in (used, fresh):
                client.sendall(REQUEST)
                answer = b"".join(iter(lambda: client.recv(10_000), b""))  # noqa: B023
                assert answer.startswith(b"HTTP/1.1 200")
                assert b"connection: close" in answer
            assert idle.recv(1) == b""
        assert "Application shutdown complete" in server.wait_until_exited()


def test_from_the_limit_of_connections_on_requests_get_503(serve: Serve) -> None:
    with serve(SERVER_LIMIT_CONCURRENCY="3") as server:
        first, second, third = (server.connect() for _ in range(3))
        with first, second, third:
            third.sendall(REQUEST)
            answer = b"".join(iter(lambda: third.recv(10_000), b""))
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"connection: close" in answer
            first.sendall(REQUEST)
            assert first.recv(10_000).startswith(b"HTTP/1.1 200")


def test_while_draining_readiness_answers_503_and_all_else_is_served(serve: Serve) -> None:
    with serve(SERVER_DRAIN_SECONDS="20") as server:
        assert httpx.get(f"{server.address}/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("Draining: readiness answers 503.")
        answer = httpx.get(f"{server.address}/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert httpx.get(f"{server.address}/openapi.json").status_code == 200
        server.process.send_signal(signal.SIGINT)  # ends the drain
        assert "Application shutdown complete" in server.wait_until_exited()


def test_it_stops_after_the_drain(serve: Serve) -> None:
    with serve(SERVER_DRAIN_SECONDS="0.5") as server:
        server.process.send_signal(signal.SIGTERM)
        output = server.wait_until_exited()
        assert server.process.returncode == 0
        # A worker learns that the drain is over from the page that it shares with the master: either may log it first.
        assert output.index("Draining") < min(output.index("Handling signal: term"), output.index(STOPPING))


def test_the_drain_file_turns_readiness_off_and_counts_as_the_drain(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "drain"
    file.touch()  # left over from an earlier run
    with serve(SERVER_DRAIN_FILE=str(file), SERVER_DRAIN_SECONDS="1000") as server:
        assert httpx.get(f"{server.address}/health/ready").status_code == 200
        file.touch()
        server.wait_for("Draining")
        assert httpx.get(f"{server.address}/health/ready").status_code == 503
        os.utime(file, (0, 0))  # made long ago
        server.process.send_signal(signal.SIGTERM)
        server.wait_until_exited()
        assert server.process.returncode == 0


@pytest.mark.parametrize("signals", [["INT"], ["INT", "INT"], ["TERM", "INT"]], ids=" ".join)
def test_a_request_that_does_not_end_is_cancelled_without_a_traceback(serve: Serve, signals: list[str]) -> None:
    """By the graceful timeout, by a second Ctrl-C, or by one after SIGTERM."""
    graceful = "2" if len(signals) == 1 else "1000"
    with own_app(serve, SERVER_GRACEFUL_TIMEOUT_SECONDS=graceful) as server:
        with begin_request(server.address, "/names"):
            for name in signals:
                os.killpg(server.process.pid, signal.Signals[f"SIG{name}"])
                server.wait_for(STOPPING)
            output = server.wait_until_exited()
        assert server.process.returncode == 0
        assert "The request was cancelled" in output
        assert "Application shutdown complete" in output
        assert "Traceback" not in output


@pytest.mark.parametrize(
    ("code", "message", "exit_code"),
    [
        ("import nowhere", "The app cannot be imported", Arbiter.APP_LOAD_ERROR),
        ("async def app(scope, receive, send): raise OSError", "Application startup failed", Arbiter.WORKER_BOOT_ERROR),
    ],
    ids=["import", "lifespan"],
)
def test_a_start_that_fails_ends_the_service(
    tmp_path: Path, database_url: str, code: str, message: str, exit_code: int
) -> None:
    (tmp_path / "broken.py").write_text(code)
    argv = ["-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "--chdir", str(tmp_path), "broken:app"]
    # One worker: where a second one fails while Gunicorn stops because of the first, Gunicorn itself ends with 1.
    environment = child_environment(DATABASE_URL=database_url, PORT="0", WEB_CONCURRENCY="1")
    ended = subprocess.run(
        [sys.executable, *argv], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == exit_code
    assert message in ended.stdout + ended.stderr


@pytest.mark.parametrize("trusted", [True, False])
def test_forwarded_headers_count_only_from_the_trusted_proxy(serve: Serve, trusted: bool) -> None:
    proxies = {"HTTP_TRUSTED_PROXIES": "127.0.0.1" if trusted else "10.0.0.1", "HTTP_REDIRECT_HTTPS": "true"}
    with serve(**proxies) as server:
        answer = httpx.get(f"{server.address}/openapi.json", headers={"X-Forwarded-Proto": "https"})
        assert answer.status_code == (200 if trusted else 308)
        assert ("Strict-Transport-Security" in answer.headers) == trusted


@pytest.mark.parametrize(
    ("name", "value", "setting", "expected"),
    [
        ("WEB_CONCURRENCY", "3", "workers", 3),
        ("PORT", "9000", "bind", ["127.0.0.1:9000"]),
        ("HOST", "::1", "bind", ["[::1]:8000"]),
        ("METRICS_PORT", "9100", "bind", ["127.0.0.1:8000", "127.0.0.1:9100"]),
        ("SERVER_MAX_REQUESTS", "500", "max_requests", 500),
        ("SERVER_MAX_REQUESTS_JITTER", "50", "max_requests_jitter", 50),
        ("SERVER_TIMEOUT_SECONDS", "17", "timeout", 17),
        ("SERVER_GRACEFUL_TIMEOUT_SECONDS", "18", "graceful_timeout", 18),
        ("SERVER_KEEP_ALIVE_SECONDS", "19", "keepalive", 19),
        ("APP_NAME", "Shop", "proc_name", "Shop"),
        ("APP_NAME", "Shop", "control_socket_disable", True),
    ],
)
def test_gunicorn_is_configured_by_the_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, setting: str, expected: object
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "elsewhere")  # where there is one, none is made
    get_settings.cache_clear()
    try:
        assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))[setting] == expected
    finally:
        get_settings.cache_clear()


def test_a_worker_runs_uvicorn_on_uvloop_and_httptools_without_its_access_log() -> None:
    script = (
        "import gunicorn.config, gunicorn.glogging\n"
        "from plinth.serving.worker import Protocol, Worker\n"
        "config = gunicorn.config.Config()\n"
        "worker = Worker(1, 1, [], None, 30, config, gunicorn.glogging.Logger(config))\n"
        "config = worker.config\n"
        "assert (config.loop, config.http, config.access_log) == ('uvloop', Protocol, False)\n"
        "assert config.limit_concurrency is None\n"
    )  # in a process of its own, because Gunicorn and its worker change loggers
    subprocess.run([sys.executable, "-c", script], env=child_environment(), check=True)
