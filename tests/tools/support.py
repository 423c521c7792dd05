"""Runs `make`, the supervisor and the app in processes of their own, as from a terminal."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from plinth.testing.locks import lock
from plinth.testing.servers import Servers

ROOT = Path(__file__).resolve().parents[2]

# Stands in for the `app` command: records its arguments and environment, and answers every request.
APP = """
import http.server, json, os, signal, sys

command, notes = sys.argv[1], os.environ["NOTES"]
with open(notes, "a") as file:
    print(json.dumps({"command": command, **os.environ}), file=file)
if command == os.environ.get("FAIL"):
    sys.exit(3)
if command == "dev":
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
        def log_message(self, *arguments):
            pass
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("The app has stopped.", flush=True)))
    http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
if command == "worker":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("The worker has stopped.", flush=True)))
    print("The worker runs.", *sys.argv[2:], flush=True)
    signal.pause()
"""

READY = "Ctrl-C stops it."
BODY = b'{"name": "Sent while it stops"}'
NO_POSTGRES = {"DATABASE_URL": "postgresql://elsewhere/one"}
NO_SERVERS = {**NO_POSTGRES, "REDIS_URL": "redis://elsewhere/1"}
SUPERVISOR = "import sys; from tools.run import main; sys.exit(main([sys.executable, *sys.argv[1:]]))"


def plain_environment(**more: str) -> dict[str, str]:
    """The environment of a new shell, without the servers of this test run."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PORT": "0", **more}


class Terminal:
    """A running command and its output so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.printed = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_until(self, text: str) -> str:
        assert self.process.stdout
        for line in self.process.stdout:
            self.printed += line
            if text in line:
                return line
        raise AssertionError(f"It ended without printing {text!r}: {self.printed}")

    def end(self) -> tuple[int, str]:
        """Wait for the end. Returns the exit code and the whole output."""
        assert self.process.stdout
        self.printed += self.process.stdout.read()
        return self.process.wait(), self.printed


@contextmanager
def command(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator[Terminal]:
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = threading.Timer(600, process.kill)  # so that a test fails instead of hanging
    deadline.start()
    try:
        yield Terminal(process)
    finally:
        deadline.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        if process.stdout:
            process.stdout.close()


def stand_in(directory: Path) -> Path:
    """The program that stands in for the app, in a project that has example data."""
    (directory / "app").mkdir(exist_ok=True)
    (directory / "app/example_data.py").touch()
    program = directory / "stand_in.py"
    program.write_text(APP)
    return program


@contextmanager
def supervised(directory: Path, **env: str) -> Iterator[Terminal]:
    """`make run` in a directory, with the stand-in for the app."""
    app = stand_in(directory)
    argv = [sys.executable, "-c", SUPERVISOR, str(app)]
    try:
        with command(argv, directory, plain_environment(NOTES=str(directory / "notes"), **env)) as terminal:
            yield terminal
    finally:
        for name in running_in(directory / ".data"):  # only after a failure
            os.killpg(pids(directory / ".data")[name], signal.SIGKILL)


def outcome(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command to completion. Returns its exit code, standard output and standard error."""
    done = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def pids(data: Path) -> dict[str, int]:
    return {file.stem: int(file.read_text()) for file in data.glob("*.pid")}


def running_in(data: Path, seconds: float = 0) -> set[str]:
    """The servers of a data directory that still run after `seconds`."""
    running = set()
    for pid_file in data.glob("*.pid"):
        with pid_file.open() as file:
            if not lock(file.fileno(), seconds):
                running.add(pid_file.stem)
    return running


def query(servers: Servers, *statements: str) -> str:
    """Execute the statements and return the value of the last one."""

    async def run() -> str:
        connection = await asyncpg.connect(servers.database_url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return str(await connection.fetchval(statements[-1]))
        finally:
            await connection.close()

    return asyncio.run(run())


def begin_request(address: str, path: str = "/api/categories") -> socket.socket:
    """Send the head of a request, and return when an endpoint waits for its body."""
    url = urlsplit(address)
    client = socket.create_connection((url.hostname, url.port))
    client.sendall(
        b"POST %b HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(BODY))
    )
    assert client.recv(1000).startswith(b"HTTP/1.1 100")
    return client
