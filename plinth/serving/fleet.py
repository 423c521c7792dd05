"""What Gunicorn's master and its workers share to replace workers without a gap, and Gunicorn's hooks for it.

Gunicorn stops a worker by SIGTERM and gives no reason: the service stops, a reload replaces the worker, there are more
workers than configured, or an operator killed it. A worker that is replaced must serve until its successor does; one
that is not must not wait. Each worker finds the reason on a page of memory that every fork inherits.

This is the one module that depends on Gunicorn's internals: it reads `WORKERS` of the arbiter and changes `num_workers`
(see `child_exit`). If those are missing, or Gunicorn handles SIGTERM in another way, nothing is recorded: workers then
stop at once and without a drain, as Gunicorn's own do.
"""

import logging
import os
import signal
import sys
import time
from mmap import mmap
from types import FrameType
from typing import Any

from plinth.serving.settings import ServerSettings

log = logging.getLogger(__name__)

_SPAWNED, _ALIVE, _WANTED, _RELOADED, _TURN, _REQUESTED, _DRAINING, _STOPPING, _BOOTED = range(9)
_AGES = 1024


class Fleet:
    """Workers are known by their age, Gunicorn's serial number: the first is 1, and each fork has the next."""

    def __init__(self) -> None:
        self.settings = ServerSettings()
        self._page = memoryview(mmap(-1, 8 * (_BOOTED + _AGES))).cast("q")
        self._active = False
        self._exit = lambda *_: sys.exit(0)

    # Called by workers:

    def booted(self, age: int) -> None:
        """Record that the worker serves."""
        self._page[_BOOTED + age % _AGES] = age

    def has_booted(self) -> bool:
        """Whether any worker ever served."""
        return self._booted_since(0) > 0

    def may_stop(self, age: int, master: int) -> bool:
        """Whether a worker that received SIGTERM may stop: it gets no successor, or that serves already."""
        page = self._page
        if page[_STOPPING] or (page[_ALIVE] > page[_WANTED] and page[_RELOADED] < age):
            return True
        if page[_RELOADED] >= age:
            return self._booted_since(page[_RELOADED]) >= page[_WANTED]
        return self.is_replaced(age, master)

    def is_replaced(self, age: int, master: int) -> bool:
        """Request a successor, and return whether it serves; to be called until it does. Workers are replaced in turn.

        Two workers may find the turn free and both write their age. The later write stays, and since a worker goes on
        only when its next call finds its own age there, the other one waits.
        """
        page = self._page
        if not page[_SPAWNED]:  # the hooks are not active: a successor comes after the worker has exited
            return True
        if not page[_TURN]:
            page[_TURN] = age
        elif page[_TURN] == age and not page[_REQUESTED]:
            page[_REQUESTED] = page[_SPAWNED]
            os.kill(master, signal.SIGTTIN)  # one worker more
        elif page[_TURN] == age:
            return self._booted_since(page[_REQUESTED]) > 0
        return False

    def announce_stop(self) -> None:
        """Record that no worker gets a successor any more."""
        self._page[_STOPPING] = 1

    def is_stopping(self) -> bool:
        """Whether the service stops: no worker gets a successor any more."""
        return bool(self._page[_STOPPING])

    def is_draining(self) -> bool:
        """Whether readiness is to answer 503: the service is about to stop, or its drain file exists."""
        file = self.settings.drain_file
        return bool(self._page[_DRAINING] or self._page[_STOPPING]) or (file is not None and file.exists())

    def _booted_since(self, age: int) -> int:
        spawned = self._page[_SPAWNED]
        younger = range(max(age, spawned - _AGES) + 1, spawned + 1)
        return sum(self._page[_BOOTED + each % _AGES] == each for each in younger)

    # Hooks, called in the master:

    def on_starting(self, _arbiter: Any) -> None:
        """Handle SIGTERM until Gunicorn does: process 1 of a container only receives signals that it handles."""
        signal.signal(signal.SIGTERM, self._exit)
        if self.settings.drain_file:
            self.settings.drain_file.unlink(missing_ok=True)

    def when_ready(self, arbiter: Any) -> None:
        """Drain between SIGTERM and the stop: readiness answers 503 while the workers go on serving."""
        stop, master = signal.getsignal(signal.SIGTERM), os.getpid()
        known = hasattr(arbiter, "WORKERS") and hasattr(arbiter, "num_workers")
        if not known or not callable(stop) or stop is self._exit:
            log.warning("Workers stop without successors and without a drain: this version of Gunicorn is unknown.")
            return
        self._active = True

        def drain(_number: int, _frame: FrameType | None) -> None:
            # A worker has this handler until it sets its own. No logging here: the signal may interrupt a log call.
            if os.getpid() == master and not self._page[_DRAINING]:
                self._page[_DRAINING] = 1
                signal.setitimer(signal.ITIMER_REAL, max(0.001, self._drain_seconds_left()))

        def end_drain(_number: int, frame: FrameType | None) -> None:
            self.announce_stop()
            stop(signal.SIGTERM, frame)

        signal.signal(signal.SIGALRM, end_drain)
        signal.signal(signal.SIGTERM, drain)

    def _drain_seconds_left(self) -> float:
        """The drain began when `app drain` made its file, or begins now."""
        file, now = self.settings.drain_file, time.time()
        began_at = file.stat().st_mtime if file and file.exists() else now
        return self.settings.drain_seconds - max(0.0, now - began_at)  # the clock may have been set back

    def on_reload(self, _arbiter: Any) -> None:
        self._page[_RELOADED] = self._page[_SPAWNED]

    def nworkers_changed(self, _arbiter: Any, wanted: int, _before: int | None) -> None:
        self._page[_WANTED] = wanted

    def pre_fork(self, arbiter: Any, worker: Any) -> None:
        if self._active:
            self._page[_SPAWNED], self._page[_ALIVE] = worker.age, len(arbiter.WORKERS) + 1

    def child_exit(self, arbiter: Any, worker: Any) -> None:
        """End the worker's turn. If it requested a successor, one worker less is wanted again.

        SIGTTOU, the documented way, would be handled after Gunicorn has forked another worker in the place of this one.
        A reload since the request has reset the number already.
        """
        page = self._page
        if self._active:
            page[_ALIVE] = len(arbiter.WORKERS)
        if self._active and page[_TURN] == worker.age:
            if page[_REQUESTED] and page[_REQUESTED] >= page[_RELOADED] and arbiter.num_workers > 1:
                arbiter.num_workers -= 1
            page[_REQUESTED] = page[_TURN] = 0


fleet = Fleet()
