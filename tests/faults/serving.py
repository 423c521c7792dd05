"""Starts Gunicorn as production does, and puts load on it: real processes, signals and sockets."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from plinth.testing.environment import child_environment
from tests.faults.load import Load

LISTENING = r"Listening at: (http://[^\s\"]+)"
STARTED = "Application startup complete"
STOPPING = "Shutting down; "
LIMIT_SECONDS = 60  # so that a test that hangs fails with the log


class Served:
    """A running server and its output so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.output = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def address(self) -> str:
        return self.wait_for(LISTENING)

    def connect(self) -> socket.socket:
        place = urlsplit(self.address)
        return socket.create_connection((place.hostname, place.port))

    def wait_for(self, pattern: str, times: int = 1) -> str:
        with self._changed:
            found = self._changed.wait_for(lambda: len(re.findall(pattern, self.output)) >= times, LIMIT_SECONDS)
            assert found, self.output
            return str(re.findall(pattern, self.output)[0])

    def workers(self) -> list[int]:
        """Return the process ids of the workers that serve."""
        ends = re.findall(r"Worker exiting \(pid: (\d+)\)|Worker \(pid:(\d+)\) was sent SIGKILL", self.output)
        gone = {pid for end in ends for pid in end}
        return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", self.output) if pid not in gone]

    def wait_until_exited(self) -> str:
        self._reader.join(LIMIT_SECONDS)
        self.process.wait(LIMIT_SECONDS)
        return self.output

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait_until_exited()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout:
            for line in self.process.stdout:
                with self._changed:
                    self.output += line
                    self._changed.notify_all()


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path, database_url: str, redis_url: str) -> Serve:
    @contextmanager
    def served(argv: Sequence[str] = ("app", "serve"), workers: int = 1, **environment: str) -> Iterator[Served]:
        defaults = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PORT": "0"}
        defaults |= {"WEB_CONCURRENCY": str(workers), "SERVER_DRAIN_SECONDS": "0"}
        defaults |= {"LIMIT_READS": "off", "LIMIT_WRITES": "off"}  # all load comes from one address
        process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            cwd=tmp_path,
            env=child_environment(**defaults | environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a killed master would leave its workers behind
        )
        server = Served(process)
        try:
            server.wait_for(STARTED, times=workers)
            yield server
        finally:
            server.kill()

    return served


@contextmanager
def load_on(server: Served, path: str = "/health/live") -> Iterator[Load]:
    """Keep every connection of a load busy until the end of the block."""
    place = urlsplit(server.address)
    load = Load(place.hostname or "", place.port or 0, path)
    thread = threading.Thread(target=asyncio.run, args=(load.run(),))
    thread.start()
    try:
        load.wait_for_answers(1000)
        yield load
    finally:
        load.enough = True
        thread.join(LIMIT_SECONDS)
