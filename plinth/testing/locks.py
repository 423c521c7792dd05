"""Locks on data directories and pid files.

A pid file alone is unreliable after a crash, because process ids are reused. A lock is reliable: the kernel releases it
with the last process that holds it. Every server that is started here inherits the lock on its own pid file.
"""

import fcntl
import os
import pwd
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_SECONDS = 10.0


class SetupError(Exception):
    """A setup problem. Its text is one sentence for the terminal: what is wrong, and what to do about it."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Lock a data directory for the length of the block, creating it if needed. Raises SetupError if it is in use."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{directory} cannot be created ({error.strerror}): run make as the checkout's owner."
        ) from error
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        name = _account_name(owner)
        raise SetupError(f"{directory} belongs to {name}: run make as {name}, or have {name} run `make clean` first.")
    with (directory / "lock").open("w") as file:
        if not lock(file.fileno(), seconds=0):
            raise SetupError(f"A run in this checkout is using {directory}: stop it first (Ctrl-C in its terminal).")
        yield


def acquire(pid_file: Path, name: str, stop_signal: signal.Signals) -> int:
    """Lock a server's pid file and return its descriptor. Stops the server that an earlier run left behind first."""
    file = os.open(pid_file, os.O_RDWR | os.O_CREAT, 0o644)
    if lock(file, seconds=0):
        return file
    pid = int(os.pread(file, 20, 0) or b"0")
    for number in (stop_signal, signal.SIGKILL):
        with suppress(ProcessLookupError):
            if pid:
                (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)
                os.kill(pid, signal.SIGCONT)
        if lock(file, STOP_SECONDS):
            return file
    os.close(file)
    raise SetupError(f"{name} of an earlier run (process {pid}) does not stop: end it, then try again.")


def lock(file: int, seconds: float) -> bool:
    """Lock an open file, waiting up to `seconds` for other holders. Returns whether it was locked."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
