"""What Gunicorn's master and its workers know of one another: a page of memory that every fork shares.

Gunicorn tells a worker to stop by SIGTERM, and does not say why. Whether others are to take its place, and whether they
serve yet, is on this page. Each field has one writer, or is settled by a second look.
"""

import os
import signal
import time
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

_SPAWNED, _RELOADED, _WANTED, _TURN, _ASKED, _DRAINING, _BOOTED = range(7)
_AGES = 1024


class Fleet:
    """Workers are told apart by their age, which is Gunicorn's: the first is 1, and younger ones have higher ages."""

    def __init__(self) -> None:
        self._page = memoryview(mmap(-1, 8 * (_BOOTED + _AGES))).cast("q")

    # Of a worker.

    def booted(self, age: int) -> None:
        """The worker serves."""
        self._page[_BOOTED + age % _AGES] = age

    def may_be_replaced(self, age: int) -> bool:
        """Told to stop: whether all have booted that a reload started in its place, if one did."""
        reloaded = self._page[_RELOADED]
        return reloaded < age or self._booted_since(reloaded) >= self._page[_WANTED]

    def is_replaced(self, age: int, master: int) -> bool:
        """Ask for a successor, again and again until one serves. Only one worker at a time has its turn."""
        turn = self._page[_TURN]
        if not self._page[_SPAWNED]:  # no hooks of ours, so nobody comes before it has gone
            return True
        if not turn:
            self._page[_TURN] = age
        elif turn == age and not self._page[_ASKED]:  # nobody else has taken the turn meanwhile
            self._page[_ASKED] = self._page[_SPAWNED]
            os.kill(master, signal.SIGTTIN)
        elif turn == age:
            return self._booted_since(self._page[_ASKED]) > 0
        return False

    @property
    def draining(self) -> bool:
        return bool(self._page[_DRAINING])

    def _booted_since(self, age: int) -> int:
        younger = range(age + 1, self._page[_SPAWNED] + 1)
        return sum(self._page[_BOOTED + each % _AGES] == each for each in younger)

    # Of the master: hooks of Gunicorn.

    def on_starting(self, arbiter: Any, drain_seconds: float, drain_file: Path | None) -> None:
        """Let SIGTERM wait until load balancers have noticed that readiness answers 503."""
        if drain_file:
            drain_file.unlink(missing_ok=True)
        stop = arbiter.handle_term

        def handle_term() -> None:
            self._page[_DRAINING] = 1
            told_since = drain_file.stat().st_mtime if drain_file and drain_file.exists() else time.time()
            _wait(arbiter, drain_seconds - (time.time() - told_since))
            stop()

        arbiter.handle_term = handle_term

    def on_reload(self, arbiter: Any) -> None:
        self._page[_WANTED] = arbiter.cfg.workers
        self._page[_RELOADED] = arbiter.worker_age

    def pre_fork(self, _arbiter: Any, worker: Any) -> None:
        self._page[_SPAWNED] = worker.age

    def child_exit(self, arbiter: Any, worker: Any) -> None:
        if self._page[_TURN] != worker.age:
            return
        # It asked for one more, which is in its place now; a reload has set the number anew.
        if self._page[_ASKED] and arbiter.num_workers > arbiter.cfg.workers:
            arbiter.num_workers -= 1
        self._page[_ASKED] = self._page[_TURN] = 0


def _wait(arbiter: Any, seconds: float) -> None:
    """Go on being a master for a while. SIGINT and SIGQUIT end it."""
    hurried: dict[int, Callable[[], None]] = {signal.SIGINT: arbiter.handle_int, signal.SIGQUIT: arbiter.handle_quit}
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for number in arbiter.wait_for_signals(timeout=left):
            hurried.get(number, arbiter.reap_workers)()


fleet = Fleet()
