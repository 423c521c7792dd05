"""What a service cannot choose: where its log goes, and a wall clock that somebody sets while it runs."""

import signal
import struct
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from plinth.testing.environment import ROOT
from tests.faults.load import LONGEST_SILENCE_SECONDS, Load
from tests.faults.service import GUNICORN
from tests.faults.serving import LIMIT_SECONDS, Serve, Served, load_on
from tests.faults.tables import execute

LOGGED = "/openapi.json"
REQUESTS = 500
HOUR = 3600
STARTS = "Message: 'Started server process"  # as Python writes it to standard error, where a record cannot be logged


class Clock:
    """The wall clock of the processes that get `environment` (see clock/sitecustomize.py)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)
        self.environment = {"CLOCK_SHIFT": str(file), "PYTHONPATH": f"{ROOT / 'tests/faults/clock'}:{ROOT}"}

    def set(self, hours: int) -> None:
        """Let it be wrong by so many hours."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", hours * HOUR))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


def test_a_full_device_for_the_log_fails_no_request(serve: Serve) -> None:
    with Path("/dev/full").open("w") as full, serve(GUNICORN, workers=2, stdout=full) as server:
        for _ in range(100):  # few, since Python writes a traceback for each
            get(server, LOGGED)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until_exited()
    assert "No space left on device" in server.output
    assert server.output.count(STARTS) == 2
    assert server.process.returncode == 0


def test_a_log_that_is_not_read_for_a_while_delays_requests_and_fails_none(serve: Serve) -> None:
    """A worker that logs waits for the pipe, and all its requests with it (see docs/plinth/logs.md)."""
    with serve(GUNICORN, workers=2) as server, load_on(server, LOGGED) as load:
        workers = server.workers()
        with server.unread():
            wait_for_silence(load)
        load.wait_for_answers(REQUESTS)
        assert not load.failures
        assert server.workers() == workers


def wait_for_silence(load: Load) -> None:
    last, seen_at, began_at = load.answered, time.monotonic(), time.monotonic()
    while time.monotonic() - seen_at < 1:
        assert time.monotonic() - began_at < LONGEST_SILENCE_SECONDS, "the pipe never fills"
        if load.answered > last:
            last, seen_at = load.answered, time.monotonic()
        time.sleep(0.01)


def test_a_clock_that_jumps_fails_no_request_and_prolongs_no_cached_value(
    serve: Serve, clock: Clock, tables: dict[str, str]
) -> None:
    environment = {**clock.environment, **tables, "LIMIT_READS": "1000000/minute"}
    with serve(GUNICORN, **environment) as server, load_on(server, "/notes/1", connections=4) as load:
        workers = server.workers()
        for round, hours in enumerate((1, 0, -1, 0)):
            kept = get(server, "/expiring/1")
            execute(tables["DATABASE_URL"], f"UPDATE fault_notes SET text = 'round {round}' WHERE id = 1")
            clock.set(hours)
            load.wait_for_answers(100)
            limit = time.monotonic() + LIMIT_SECONDS
            while get(server, "/expiring/1") == kept:
                assert time.monotonic() < limit, f"cached for ever, once the clock is wrong by {hours} h"
                time.sleep(0.01)
        assert not load.failures
        assert server.workers() == workers


def get(server: Served, path: str) -> bytes:
    place = urlsplit(server.address)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=LIMIT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body
    finally:
        connection.close()


def test_a_clock_that_is_set_back_does_not_prolong_a_drain(serve: Serve, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "drain"
    drain = {"SERVER_DRAIN_FILE": str(file), "SERVER_DRAIN_SECONDS": "1"}
    with serve(GUNICORN, **drain, **clock.environment) as server:
        file.touch()
        clock.set(-1)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until_exited()
    assert server.process.returncode == 0
