"""Who uses a data directory, told by locks and not by pid files.

A pid file alone lies after a crash, because process ids are used again. A lock cannot: the kernel drops it with the
last process that holds it. Every server that we start inherits the lock on its own pid file.
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
    """What is wrong and what to do about it, in one sentence for the person at the terminal."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a data directory, which is made if it is missing. Raises SetupError where another run does."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{directory} cannot be made ({error.strerror}): run make as the checkout's owner.") from error
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        name = _account_name(owner)
        raise SetupError(f"{directory} belongs to {name}: run make as {name}, or have {name} run `make clean` first.")
    with (directory / "lock").open("w") as file:
        if not lock(file.fileno(), seconds=0):
            raise SetupError(f"A run in this checkout is using {directory}: stop it first (Ctrl-C in its terminal).")
        yield


def acquire(pid_file: Path, name: str, stop_signal: signal.Signals) -> int:
    """Lock the pid file of a server, and first stop the one that an earlier run left behind."""
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
    """Lock an open file, which may take others that long to let go; whether that worked."""
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
