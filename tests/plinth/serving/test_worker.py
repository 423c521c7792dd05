"""Gunicorn with our workers: what it serves, and how it stops."""

import os
import runpy
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import gunicorn.config
import httpx
import orjson
import pytest
from gunicorn.glogging import Logger

from app.settings import get_settings
from plinth.serving.protocol import Protocol
from plinth.serving.worker import Worker
from plinth.testing.environment import ROOT
from tests.plinth.serving.conftest import Serve
from tests.tools.support import BODY, begin_request


def test_it_serves_with_the_workers_asked_for_and_stops_cleanly(serve: Serve) -> None:
    with serve(workers=2, LOG_FORMAT="json") as server:
        answer = httpx.get(f"{server.address}/api/products")
        assert answer.status_code == 200
        assert "Server" not in answer.headers
        server.process.send_signal(signal.SIGTERM)
        said = server.to_the_end()
        assert server.process.returncode == 0
        assert said.count("Application shutdown complete") == 2
        # The master's lines are JSON too.
        assert {orjson.loads(line)["level"] for line in said.splitlines()} == {"INFO"}


def test_a_request_in_flight_is_answered_before_it_stops(serve: Serve) -> None:
    with serve() as server:
        with begin_request(server.address) as client:
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("Leaving")
            client.sendall(BODY)
            assert client.recv(100_000).startswith((b"HTTP/1.1 201", b"HTTP/1.1 409"))
        server.to_the_end()
        assert server.process.returncode == 0


def test_a_connection_that_waits_is_told_to_close_or_closed_in_the_end(serve: Serve) -> None:
    with serve() as server:
        place = urlsplit(server.address)
        request = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"
        used, fresh, idle = (socket.create_connection((place.hostname, place.port)) for _ in range(3))
        with used, fresh, idle:
            for client in (used, idle):
                client.sendall(request)
                answer = b""
                while not answer.endswith(b"}"):
                    answer += client.recv(10_000)
                assert b"connection: close" not in answer
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("Leaving; 3 connections")
            for client in (used, fresh):
                client.sendall(request)
                answer = b"".join(iter(lambda: client.recv(10_000), b""))  # noqa: B023
                assert answer.startswith(b"HTTP/1.1 200")
                assert b"connection: close" in answer
            assert idle.recv(1) == b""
        assert "Application shutdown complete" in server.to_the_end()


def test_asked_to_stop_it_tells_so_for_a_while_and_goes_on_serving(serve: Serve) -> None:
    with serve(SERVER_DRAIN_SECONDS="20") as server:
        assert httpx.get(f"{server.address}/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("Handling signal: term")
        while (answer := httpx.get(f"{server.address}/health/ready")).status_code == 200:
            pass
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert httpx.get(f"{server.address}/api/products").status_code == 200
        server.process.send_signal(signal.SIGINT)  # in a hurry after all
        assert "Application shutdown complete" in server.to_the_end()


def test_the_drain_file_turns_traffic_away_and_counts_as_the_drain(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "drain"
    file.touch()  # of a run before
    with serve(SERVER_DRAIN_FILE=str(file), SERVER_DRAIN_SECONDS="1000") as server:
        assert httpx.get(f"{server.address}/health/ready").status_code == 200
        file.touch()
        while httpx.get(f"{server.address}/health/ready").status_code == 200:
            pass
        os.utime(file, (0, 0))  # as if it had been there for long
        server.process.send_signal(signal.SIGTERM)
        server.to_the_end()
        assert server.process.returncode == 0


@pytest.mark.parametrize("signals", [["INT"], ["INT", "INT"], ["TERM", "INT"]], ids=" ".join)
def test_a_request_that_does_not_end_is_cut_off_without_a_traceback(serve: Serve, signals: list[str]) -> None:
    """By the graceful timeout, by a second Ctrl-C, or by one after SIGTERM."""
    graceful = "2" if len(signals) == 1 else "1000"
    with serve(SERVER_GRACEFUL_TIMEOUT_SECONDS=graceful) as server:
        with begin_request(server.address):
            for name in signals:
                os.killpg(server.process.pid, signal.Signals[f"SIG{name}"])
                server.wait_for("Leaving")
            said = server.to_the_end()
        assert server.process.returncode == 0
        assert "A request was cut off" in said
        assert "Application shutdown complete" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("trusted", [True, False])
def test_forwarded_headers_are_believed_only_from_the_trusted_proxy(serve: Serve, trusted: bool) -> None:
    proxies = {"HTTP_TRUSTED_PROXIES": "127.0.0.1" if trusted else "10.0.0.1", "HTTP_REDIRECT_HTTPS": "true"}
    with serve(**proxies) as server:
        answer = httpx.get(f"{server.address}/api/products", headers={"X-Forwarded-Proto": "https"})
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
    assert (options["loop"], options["http"], options["access_log"]) == ("uvloop", Protocol, False)
    worker = Worker(1, os.getpid(), [], None, 30, gunicorn.config.Config(), Logger(gunicorn.config.Config()))
    worker.tmp.close()
    assert worker.config.timeout_graceful_shutdown < worker.cfg.graceful_timeout
