"""The folder in which processes that are several keep their metrics (see plinth/telemetry/scraping.py).

prometheus_client looks for PROMETHEUS_MULTIPROC_DIR once, when it is imported. So gunicorn.conf.py calls
`make_folder()` before it imports anything that does, and nothing here may.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "plinth-metrics-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it has a random name, and is for its owner only
_made: list[tuple[Path, int]] = []


def make_folder() -> None:
    """Make the folder for this process and those that it starts, unless a process above it has made one.

    A folder is locked by the processes that use it. Those of services that were killed are removed.
    """
    if VARIABLE in os.environ:
        return
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove_if_abandoned(path)
    unlocked = Path(tempfile.mkdtemp(prefix="plinth-new-", dir=parent))
    lock = os.open(unlocked / "owner", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = unlocked.rename(parent / unlocked.name.replace("plinth-new-", PREFIX))
    _made.append((folder, lock))
    os.environ[VARIABLE] = str(folder)


def remove_folder() -> None:
    """Remove it, if this process has made it."""
    while _made:
        folder, lock = _made.pop()
        os.environ.pop(VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def shared_folder() -> Iterator[None]:
    make_folder()
    try:
        yield
    finally:
        remove_folder()


def _remove_if_abandoned(folder: Path) -> None:
    with (folder / "owner").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError while a process has it open
        shutil.rmtree(folder)
