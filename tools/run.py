"""`make run`: starts the servers, migrates, loads example data if there is any, serves, and runs jobs.

All stop when one does. Every process that is started here is stopped on exit, however this process ends.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType

from dotenv import dotenv_values

from plinth.testing.locks import SetupError, held
from plinth.testing.network import LOOPBACK, reserved_port
from plinth.testing.process import STOP_SIGNALS, Process
from plinth.testing.servers import POSTGRES_VERSION, Servers, started

EXAMPLE = "app/example_data.py"  # which `app remove example` takes out
JOBS = "app/jobs.py"  # and `app remove jobs` this
ACCOUNTS = "app/models/users.py"  # and `app remove accounts` this
PLACES = {"API": "/api/products", "Docs": "/docs", "Health": "/health/ready"}
SIGNS_IN = "  Users   admin@example.com, editor@example.com, test@example.com; password testpass123\n"


class Stopped(BaseException):
    """SIGINT (Ctrl-C), SIGTERM, or SIGHUP (the terminal was closed)."""


def main(app: Sequence[str]) -> int:
    """Run until a signal arrives and return the exit code. `app` is the command line of the app's CLI."""
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        run(Path.cwd(), app)
    except Stopped:
        echo("Stopped.")
        return 0
    except (SetupError, OSError) as error:
        with suppress(OSError):
            os.write(2, f"{error}\n".encode())
    return 1


def run(root: Path, app: Sequence[str]) -> None:
    """Serve until a signal raises Stopped. Raises SetupError for what the user can fix."""
    environ = {key: value for key, value in (dotenv_values(root / ".env") | os.environ).items() if value}
    data = root / ".data"
    server = Process("The app", data, "app", signal.SIGTERM)
    worker = Process("The worker", data, "worker", signal.SIGTERM)
    with held(data), ExitStack() as stack:
        try:
            server.end_leftover()
            host = environ.get("HOST", LOOPBACK)
            port = stack.enter_context(reserved_port(host, _number(environ, "PORT", 8000)))
            echo("Starting the servers; their data and logs are in .data/.")
            servers = stack.enter_context(started(data, _number(environ, "PG", POSTGRES_VERSION), True, environ))
            stack.callback(worker.stop)
            stack.callback(server.stop)
            example = (root / EXAMPLE).exists()
            env = _environment(environ, servers, host, port, example)
            stack.enter_context(_addresses(data / "servers.env", environ, env))
            _prepare(app, env)
            server.start_in_terminal([*app, "dev"], env)
            if (root / JOBS).exists():
                worker.start_in_terminal([*app, "worker", "--reload"], env)
            places = {name: path for name, path in PLACES.items() if example or name != "API"}
            signs_in = SIGNS_IN if _loads(env) and (root / ACCOUNTS).exists() else ""
            _watch((server, worker, *servers.processes), host, port, places, signs_in)
        finally:
            _ignore_signals()


def _environment(environ: Mapping[str, str], servers: Servers, host: str, port: int, example: bool) -> dict[str, str]:
    given = {"HOST": host, "PORT": str(port), "DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
    loads = {"APP_EXAMPLE_DATA": environ.get("APP_EXAMPLE_DATA", "true")} if example else {}
    return {name: value for name, value in os.environ.items() if name != "APP_EXAMPLE_DATA"} | given | loads


@contextmanager
def _addresses(file: Path, given: Mapping[str, str], env: Mapping[str, str]) -> Iterator[None]:
    """What the settings lack in another shell, for `app doctor`: a file that is there while the servers run."""
    names = ["HOST", "PORT", *({"DATABASE_URL", "REDIS_URL"} - given.keys())]
    file.write_text("".join(f"{name}={env[name]}\n" for name in names))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _prepare(app: Sequence[str], env: Mapping[str, str]) -> None:
    commands = ["migrate", "seed"] if _loads(env) else ["migrate"]
    for command in commands:
        # In a session of its own, because it would print a traceback on Ctrl-C.
        code = subprocess.run([*app, command], env=env, start_new_session=True, check=False).returncode
        if code:
            raise SetupError(f"`app {command}` failed (exit code {code}): see its output above.")


def _loads(env: Mapping[str, str]) -> bool:
    """Whether example data is loaded."""
    return env.get("APP_EXAMPLE_DATA", "").lower() in {"true", "yes", "on", "1"}


def _watch(processes: Sequence[Process], host: str, port: int, places: Mapping[str, str], signs_in: str) -> None:
    shown = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)
    announced = False
    while True:
        for process in processes:
            if process.exit_code is not None:
                where = f": see {process.log}" if process.log.exists() else ""
                raise SetupError(f"{process.name} exited (code {process.exit_code}){where}.")
        if not announced and _answers(shown, port):
            announced = True
            address = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
            shown_places = "".join(f"  {name:8}{address}{path}\n" for name, path in places.items())
            echo(f"\n{shown_places}{signs_in}\nCtrl-C stops it.")
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
        raise SetupError(f"{name}={value} is not a valid number: set another, as in `make run {name}={default}`.")
    return int(value)


def _stop(number: int, frame: FrameType | None) -> None:
    _ignore_signals()
    raise Stopped


def _ignore_signals() -> None:
    """Called when stopping, so that a second Ctrl-C does not interrupt the clean-up."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def echo(text: str) -> None:
    # Unbuffered. A terminal that is gone must not keep the servers from being stopped.
    with suppress(OSError):
        os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(main([str(Path(sys.executable).with_name("app"))]))
