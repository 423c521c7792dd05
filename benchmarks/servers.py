"""A server that is measured: on cores of its own, and told nothing by the shell or a `.env`, since defaults count."""

import os
import signal
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.processes import SERVER_CORES, cpu_seconds, family, pinned
from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK, free_port
from plinth.testing.process import Process

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    name: str
    process: Process
    port: int
    cores: Set[int]

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def workers(self) -> list[int]:
        pid = self.process.pid or 0
        return family(pid)[1:] or [pid]

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid or 0)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers("/health/live"):
            if self.process.exit_code is not None or time.monotonic() > deadline:
                raise SetupError(f"{self.name} does not start:\n{self.process.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self, path: str) -> bool:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def launch(name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, cores: Set[int] = SERVER_CORES) -> Server:
    """Start a server, which finds its address in `HOST` and `PORT`; it may not answer yet."""
    port = free_port()
    # The second pair is what the uvicorn command reads.
    address = {"HOST": LOOPBACK, "PORT": str(port), "UVICORN_HOST": LOOPBACK, "UVICORN_PORT": str(port)}
    process = Process(name, log.parent, log.stem, signal.SIGTERM)
    with pinned(cores):
        process.start(argv, {**plain_environment(), **address, **env})
    return Server(name, process, port, cores)


def plain_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)}
