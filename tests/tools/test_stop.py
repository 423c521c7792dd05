"""The end of `make run`: no process is left, however it ends."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.tools.support import (
    APP,
    NO_POSTGRES,
    NO_SERVERS,
    READY,
    SUPERVISOR,
    command,
    pids,
    plain_environment,
    running_in,
    supervised,
)


@pytest.mark.parametrize(
    ("number", "given"), [(signal.SIGINT, {}), (signal.SIGTERM, NO_POSTGRES), (signal.SIGHUP, NO_POSTGRES)]
)
def test_a_signal_stops_everything_once(tmp_path: Path, number: signal.Signals, given: dict[str, str]) -> None:
    with supervised(tmp_path, **given) as terminal:
        terminal.read_until(READY)
        assert running_in(tmp_path / ".data") == {"app", "valkey"} | ({"postgres"} if not given else set())
        os.killpg(terminal.pid, number)
        os.killpg(terminal.pid, number)  # a second signal has no effect
        code, printed = terminal.end()
        assert code == 0
        assert printed.split(READY)[1] == "\nThe app has stopped.\nStopped.\n"
        assert not running_in(tmp_path / ".data")


def test_a_signal_during_the_start_stops_everything_too(tmp_path: Path) -> None:
    with supervised(tmp_path) as terminal:
        terminal.read_until("Starting the servers")
        os.killpg(terminal.pid, signal.SIGINT)
        code, printed = terminal.end()
        assert code == 0
        assert printed.splitlines()[1:] == ["Stopped."]
        assert not running_in(tmp_path / ".data")


def on_terminal(app: Path, **env: str) -> tuple["subprocess.Popen[bytes]", int]:
    """Run the supervisor on a pseudo-terminal. Returns it and the controlling end of the terminal."""
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(app)],
        cwd=app.parent,
        env=plain_environment(NOTES=str(app.with_name("notes")), **env),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(terminal)
    return process, controller


def read_until(terminal: int, text: bytes) -> None:
    printed = b""
    while text not in printed:
        printed += os.read(terminal, 1000)


def test_closing_the_terminal_stops_everything(tmp_path: Path) -> None:
    app = tmp_path / "stand_in.py"
    app.write_text(APP)
    process, terminal = on_terminal(app, **NO_POSTGRES)
    read_until(terminal, READY.encode())
    assert running_in(tmp_path / ".data") == {"app", "valkey"}
    os.close(terminal)
    assert process.wait(timeout=300) == 0
    assert not running_in(tmp_path / ".data")


def test_a_debugger_in_the_app_can_read_the_keyboard(tmp_path: Path) -> None:
    app = tmp_path / "debugged.py"
    app.write_text(
        "import signal, sys\nif sys.argv[1] == 'dev':\n    print('read', input('(Pdb) '))\n    signal.pause()\n"
    )
    process, terminal = on_terminal(app, **NO_SERVERS)
    read_until(terminal, b"(Pdb) ")
    os.write(terminal, b"next\n")
    read_until(terminal, b"read next")
    os.write(terminal, b"\x03")  # Ctrl-C
    read_until(terminal, b"Stopped.")
    assert process.wait(timeout=300) == 0
    os.close(terminal)


def test_an_app_that_ignores_sigterm_is_killed_with_its_workers(tmp_path: Path) -> None:
    app = tmp_path / "stubborn.py"
    app.write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if sys.argv[1] == 'dev':\n"
        "    os.fork()\n"  # the lock shows whether this worker runs, because it inherits it
        "    signal.alarm(20)\n"
        "    print('deaf', flush=True)\n"
        "    signal.pause()\n"
    )
    impatient = "import plinth.testing.process; plinth.testing.process.STOP_SECONDS = 0.1; " + SUPERVISOR
    env = plain_environment(**NO_SERVERS)
    with command([sys.executable, "-c", impatient, str(app)], tmp_path, env) as terminal:
        terminal.read_until("deaf")
        terminal.read_until("deaf")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.process.wait() == 0
        assert not running_in(tmp_path / ".data", seconds=5)


@pytest.mark.parametrize(
    ("victim", "name", "given"),
    [("postgres", "PostgreSQL", {}), ("valkey", "Valkey", NO_POSTGRES), ("app", "The app", NO_POSTGRES)],
)
def test_the_death_of_one_is_reported_and_stops_the_others(
    tmp_path: Path, victim: str, name: str, given: dict[str, str]
) -> None:
    with supervised(tmp_path, **given) as terminal:
        terminal.read_until(READY)
        os.kill(pids(tmp_path / ".data")[victim], signal.SIGKILL)
        code, printed = terminal.end()
        assert code == 1
        [sentence] = printed.split(READY)[1].replace("The app has stopped.\n", "").strip().splitlines()
        assert sentence.startswith(f"{name} exited (code -9)")
        # The children of a killed PostgreSQL need a moment to exit.
        assert not running_in(tmp_path / ".data", seconds=10)


def test_a_run_starts_after_one_that_was_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as terminal:
        port = str(terminal.read_until("  API ").split(":")[2].split("/")[0])
        before = pids(tmp_path / ".data")
        for pid in before.values():
            os.kill(pid, signal.SIGSTOP)  # so that none of them exits on its own
        os.kill(terminal.pid, signal.SIGKILL)
        assert terminal.process.wait() == -signal.SIGKILL
        assert running_in(tmp_path / ".data") == {"app", "postgres", "valkey"}

        with supervised(tmp_path, PORT=port) as second:
            second.read_until(READY)
            assert running_in(tmp_path / ".data") == {"app", "postgres", "valkey"}
            assert not before.items() & pids(tmp_path / ".data").items()
