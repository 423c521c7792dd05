"""What Gunicorn's master and its workers know of one another: a page of memory that every fork shares.

Gunicorn tells a worker to stop by SIGTERM, and does not say why. Whether others are to take its place, and whether they
serve yet, is on this page. Each field has one writer, or is settled by a second look.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from mmap import mmap
from typing import Any

from plinth.serving.settings import ServerSettings

_SPAWNED, _ALIVE, _WANTED, _RELOADED, _TURN, _ASKED, _DRAINING, _STOPPING, _BOOTED = range(9)
_AGES = 1024


class Fleet:
    """Workers are told apart by their age, which is Gunicorn's: the first is 1, and younger ones have higher ages."""

    def __init__(self) -> None:
        self._page = memoryview(mmap(-1, 8 * (_BOOTED + _AGES))).cast("q")
        self.settings = ServerSettings()

    def configure(self, settings: ServerSettings) -> None:
        """Set what the workers that are forked from now on use."""
        self.settings = settings

    # Of a worker.

    def booted(self, age: int) -> None:
        """The worker serves."""
        self._page[_BOOTED + age % _AGES] = age

    def has_booted(self) -> bool:
        """Whether any worker ever has."""
        return self._booted_since(0) > 0

    def may_leave(self, age: int, master: int) -> bool:
        """Told to stop: not before somebody serves in its place, unless nobody is to."""
        page = self._page
        if page[_STOPPING] or (page[_ALIVE] > page[_WANTED] and page[_RELOADED] < age):
            return True
        if page[_RELOADED] >= age:
            return self._booted_since(page[_RELOADED]) >= page[_WANTED]
        return self.is_replaced(age, master)

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
        return bool(self._page[_DRAINING] or self._page[_STOPPING])

    def _booted_since(self, age: int) -> int:
        spawned = self._page[_SPAWNED]
        younger = range(max(age, spawned - _AGES) + 1, spawned + 1)
        return sum(self._page[_BOOTED + each % _AGES] == each for each in younger)

    # Of the master: hooks of Gunicorn.

    def on_starting(self, arbiter: Any) -> None:
        """Let SIGTERM wait until load balancers have noticed that readiness answers 503."""
        drain_seconds, drain_file = self.settings.drain_seconds, self.settings.drain_file
        handle_term, stop = arbiter.handle_term, arbiter.stop

        def drain_first() -> None:
            self._page[_DRAINING] = 1
            told_since = drain_file.stat().st_mtime if drain_file and drain_file.exists() else time.time()
            _wait(arbiter, drain_seconds - (time.time() - told_since))
            handle_term()

        def tell_and_stop(graceful: bool = True) -> None:
            self._page[_STOPPING] = 1
            stop(graceful)

        arbiter.handle_term, arbiter.stop = drain_first, tell_and_stop

    def on_reload(self, arbiter: Any) -> None:
        self._page[_RELOADED] = arbiter.worker_age

    def nworkers_changed(self, _arbiter: Any, wanted: int, _before: int | None) -> None:
        self._page[_WANTED] = wanted

    def pre_fork(self, arbiter: Any, worker: Any) -> None:
        self._page[_SPAWNED], self._page[_ALIVE] = worker.age, len(arbiter.WORKERS) + 1

    def child_exit(self, arbiter: Any, worker: Any) -> None:
        self._page[_ALIVE] = len(arbiter.WORKERS)
        if self._page[_TURN] != worker.age:
            return
        # It asked for one more, which is in its place now; a reload since has set the number anew.
        if self._page[_ASKED] and self._page[_ASKED] >= self._page[_RELOADED] and arbiter.num_workers > 1:
            arbiter.num_workers -= 1
        self._page[_ASKED] = self._page[_TURN] = 0


def handle_sigterm() -> None:
    """Process 1 of a container gets no signal that it does not handle, and Gunicorn handles none before it begins."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def _wait(arbiter: Any, seconds: float) -> None:
    """Go on being a master for a while. SIGINT and SIGQUIT end it."""
    hurried: dict[int, Callable[[], None]] = {signal.SIGINT: arbiter.handle_int, signal.SIGQUIT: arbiter.handle_quit}
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for number in arbiter.wait_for_signals(timeout=left):
            hurried.get(number, arbiter.reap_workers)()


fleet = Fleet()
