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
from typing import IO
from urllib.parse import urlsplit

import pytest

from plinth.testing.environment import child_environment
from tests.faults.load import Load

# The second form is Python's own, on standard error, of a record that could not be written.
LISTENING = r"(?:Listening at: |^Arguments: \(')(http://[^\s\",']+)"
STARTED = "Application startup complete"
STOPPING = "Shutting down; "
LIMIT_SECONDS = 300  # so that a test that hangs fails with the log


class Served:
    """A running server and its output so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._may_read = threading.Event()
        self._may_read.set()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def address(self) -> str:
        return self.wait_for(LISTENING)

    def connect(self) -> socket.socket:
        place = urlsplit(self.address)
        return socket.create_connection((place.hostname, place.port))

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """Wait until lines match, and return the first match. Each line is looked at once, however many there are."""
        found: list[str] = []
        looked_at = 0

        def are_enough() -> bool:
            nonlocal looked_at
            for line in self._lines[looked_at:]:
                found.extend(re.findall(pattern, line)[:1])  # a line of JSON has its message twice, as its event too
            looked_at = len(self._lines)
            return len(found) >= times

        with self._changed:
            assert self._changed.wait_for(are_enough, LIMIT_SECONDS), self.output
            return found[0]

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Leave its output in the pipe, which holds 64 KiB."""
        self._may_read.clear()
        try:
            yield
        finally:
            self._may_read.set()

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
        pipe = self.process.stdout or self.process.stderr
        assert pipe
        with pipe:
            for line in pipe:
                self._may_read.wait()
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path, database_url: str, redis_url: str) -> Serve:
    def serve(
        argv: Sequence[str] = ("app", "serve"), workers: int = 1, stdout: IO[str] | None = None, **environment: str
    ) -> AbstractContextManager[Served]:
        defaults = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "SERVER_DRAIN_SECONDS": "0"}
        return served(argv, tmp_path, workers, stdout, **defaults | environment)

    return serve


@contextmanager
def served(
    argv: Sequence[str], folder: Path, workers: int, stdout: IO[str] | None = None, **environment: str
) -> Iterator[Served]:
    """Start a server in this folder, and end it after the block. Its output is read, or goes to `stdout`."""
    defaults = {"PORT": "0", "WEB_CONCURRENCY": str(workers)}
    defaults |= {"LIMIT_READS": "off", "LIMIT_WRITES": "off"}  # all load comes from one address
    defaults |= {"SERVER_BLOCKED_SECONDS": "1"}  # a busy machine blocks every process for a moment
    process = subprocess.Popen(
        [sys.executable, "-m", *argv],
        cwd=folder,
        env=child_environment(**defaults | environment),
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE if stdout else subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a killed master would leave its workers behind
    )
    server = Served(process)
    try:
        server.wait_for(STARTED, times=workers)
        yield server
    finally:
        server.kill()


@contextmanager
def load_on(server: Served, path: str = "/health/live", connections: int = 16) -> Iterator[Load]:
    """Keep every connection of a load busy until the end of the block."""
    place = urlsplit(server.address)
    load = Load(place.hostname or "", place.port or 0, path, connections)
    thread = threading.Thread(target=asyncio.run, args=(load.run(),))
    thread.start()
    try:
        load.wait_for_answers(1000)
        yield load
    finally:
        load.enough = True
        thread.join(LIMIT_SECONDS)
