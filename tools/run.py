"""`make run`: the servers, the migrations, example data and the app; everything ends when one of them does.

Never leave anything running: whatever is started here is stopped on the way out, whichever way that is.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType

from dotenv import dotenv_values

from plinth.testing.locks import SetupError, held
from plinth.testing.network import LOOPBACK, free_port
from plinth.testing.process import STOP_SIGNALS, Process
from plinth.testing.servers import POSTGRES_VERSION, Servers, started

PLACES = {"API": "/api/products", "Docs": "/docs", "Health": "/health/ready"}


class Stopped(BaseException):
    """Ctrl-C, a polite kill, or the end of the terminal."""


def main(app: Sequence[str]) -> int:
    """`app` is the app's command."""
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        run(Path.cwd(), app)
    except Stopped:
        say("Stopped.")
        return 0
    except (SetupError, OSError) as error:
        with suppress(OSError):
            os.write(2, f"{error}\n".encode())
    return 1


def run(root: Path, app: Sequence[str]) -> None:
    """Serve until a signal stops us. Raises SetupError for what the user can mend."""
    environ = {key: value for key, value in (dotenv_values(root / ".env") | os.environ).items() if value}
    data = root / ".data"
    server = Process("The app", data, "app", signal.SIGTERM)
    with held(data), ExitStack() as stack:
        try:
            server.end_leftover()
            host = environ.get("HOST", LOOPBACK)
            port = free_port(host, _number(environ, "PORT", 8000))
            say("Starting the servers; their data and logs are in .data/.")
            servers = stack.enter_context(started(data, _number(environ, "PG", POSTGRES_VERSION), True, environ))
            stack.callback(server.stop)
            _serve(server, app, _environment(environ, servers, host, port))
            _watch((server, *servers.processes), host, port)
        finally:
            _ignore_signals()


def _environment(environ: Mapping[str, str], servers: Servers, host: str, port: int) -> dict[str, str]:
    return dict(os.environ) | {
        "HOST": host,
        "PORT": str(port),
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": servers.redis_url,
        "APP_EXAMPLE_DATA": environ.get("APP_EXAMPLE_DATA", "true"),
    }


def _serve(server: Process, app: Sequence[str], env: Mapping[str, str]) -> None:
    commands = ["migrate", "seed"] if env["APP_EXAMPLE_DATA"].lower() in {"true", "yes", "on", "1"} else ["migrate"]
    for command in commands:
        # In a session of its own, since a Ctrl-C would make it print where it was.
        code = subprocess.run([*app, command], env=env, start_new_session=True, check=False).returncode
        if code:
            raise SetupError(f"`app {command}` failed (exit code {code}): what it said is above.")
    server.start_in_terminal([*app, "dev"], env)


def _watch(processes: Sequence[Process], host: str, port: int) -> None:
    shown = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)
    announced = False
    while True:
        for process in processes:
            if process.exit_code is not None:
                where = f"; {process.log} may say why" if process.log.exists() else ""
                raise SetupError(f"{process.name} stopped by itself (exit code {process.exit_code}){where}.")
        if not announced and _answers(shown, port):
            announced = True
            address = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
            places = "".join(f"  {name:8}{address}{path}\n" for name, path in PLACES.items())
            say(f"\n{places}\nCtrl-C stops it.")
        time.sleep(0.5 if announced else 0.05)


def _answers(host: str, port: int) -> bool:
    connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", PLACES["Health"])
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, str(default))
    if not value.isdecimal() or int(value) > 65535:
        raise SetupError(f"{name}={value} is not a number that fits: set another, as in `make run {name}={default}`.")
    return int(value)


def _stop(number: int, frame: FrameType | None) -> None:
    _ignore_signals()
    raise Stopped


def _ignore_signals() -> None:
    """From here on we are stopping; a second Ctrl-C would leave half of it undone."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def say(text: str) -> None:
    # Straight to the terminal, which may be gone: that is no reason to leave servers running.
    with suppress(OSError):
        os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(main([str(Path(sys.executable).with_name("app"))]))
