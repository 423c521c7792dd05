"""Starts a server to measure: pinned to a core, without the shell's variables or a `.env`, so that defaults apply."""

import os
import signal
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.processes import cpu_seconds, pinned, process_tree
from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK
from plinth.testing.process import Process

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    name: str
    process: Process
    port: int
    cores: Set[int]
    authorization: str = ""
    """The header of requests that change something, if the server wants one."""

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def workers(self) -> list[int]:
        """The ids of the processes that serve requests: the children of the process, or itself if it has none."""
        pid = self.process.pid or 0
        return process_tree(pid)[1:] or [pid]

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid or 0)

    def wait_until_ready(self) -> None:
        """Raises SetupError when the server exits or does not answer in time."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_live():
            if self.process.exit_code is not None or time.monotonic() > deadline:
                raise SetupError(f"{self.name} does not start:\n{self.process.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _is_live(self) -> bool:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def launch(
    name: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    log: Path,
    port: int,
    cores: Set[int],
    authorization: str = "",
) -> Server:
    """Start a server on a reserved port, which it gets as `HOST` and `PORT`. Does not wait until it answers."""
    # The uvicorn command reads UVICORN_HOST and UVICORN_PORT.
    address = {"HOST": LOOPBACK, "PORT": str(port), "UVICORN_HOST": LOOPBACK, "UVICORN_PORT": str(port)}
    process = Process(name, log.parent, log.stem, signal.SIGTERM)
    with pinned(cores):
        process.start(argv, {**plain_environment(), **address, **env})
    return Server(name, process, port, cores, authorization)


def plain_environment() -> dict[str, str]:
    """The few variables that any process needs, and the path of the code."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)}
