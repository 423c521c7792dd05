"""Restarts and recycling under load, repeated often enough to show rare failures."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.faults.service import GUNICORN
from tests.faults.serving import LIMIT_SECONDS, STARTED, STOPPING, Serve, Served, load_on

ROUNDS = 10
REQUESTS = 200_000


def reload(server: Served, round: int) -> None:
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(STARTED, times=2 + 2 * round)
    server.wait_for("Worker exiting", times=2 * round)


def stop_one_by_one(server: Served, round: int) -> None:
    for stopped, worker in enumerate(server.workers(), start=2 * round - 1):
        os.kill(worker, signal.SIGTERM)
        server.wait_for(STARTED, times=2 + stopped)
        server.wait_for("Worker exiting", times=stopped)


@pytest.mark.parametrize("restart", [reload, stop_one_by_one])
def test_no_restart_fails_a_request(serve: Serve, restart: Callable[[Served, int], None]) -> None:
    with serve(workers=2) as server, load_on(server) as load:
        for round in range(1, ROUNDS + 1):
            restart(server, round)
        load.wait_for_answers(max(0, REQUESTS // 2 - load.answered))
        assert not load.failures


def test_no_worker_with_max_requests_fails_a_request(serve: Serve) -> None:
    limits = {"SERVER_MAX_REQUESTS": "5000", "SERVER_MAX_REQUESTS_JITTER": "1000"}
    with serve(workers=2, **limits) as server, load_on(server) as load:
        load.wait_for_answers(REQUESTS)
        assert not load.failures
        assert server.output.count("Worker exiting") >= 10


def test_every_killed_worker_is_replaced(serve: Serve) -> None:
    with serve(workers=2) as server, load_on(server) as load:
        for round in range(1, ROUNDS + 1):
            before = sum(load.failures.values())
            os.kill(server.workers()[-1], signal.SIGKILL)
            server.wait_for(STARTED, times=2 + round)
            load.wait_for_answers(1000)
            assert sum(load.failures.values()) - before <= load.connections


def test_a_service_that_stops_during_a_reload_stops_all_workers_at_once(serve: Serve) -> None:
    """Also those that have just started, while an old one still waits for a request: the times would add up."""
    slow = {"SERVER_BODY_TIMEOUT_SECONDS": "60", "SERVER_GRACEFUL_TIMEOUT_SECONDS": "40"}
    with serve(GUNICORN, workers=2, **slow) as server, server.connect() as client:
        client.settimeout(LIMIT_SECONDS)
        client.sendall(b"POST /bodies/1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")  # an endpoint waits for the body
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(STARTED, times=4)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(STOPPING, times=4)
        client.sendall(b"{}")
        assert client.recv(1000).startswith(b"HTTP/1.1 415 ")  # its body is not said to be JSON
        server.wait_until_exited()
    assert server.process.returncode == 0
