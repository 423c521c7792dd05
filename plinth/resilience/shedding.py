"""Load shedding: bounds how many requests a process works on at once, and refuses what it could not answer in time.

A process that accepts more than it can do answers everything late, and clients give up on what it has worked for. The
bound adapts to the lag of the event loop, which is what overload of the process is: a request that waits for the
database or another server takes none of the loop's time, so that slowness elsewhere does not lower it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from time import monotonic
from typing import NamedTuple

from plinth.telemetry.metrics import REQUESTS, SHED
from plinth.telemetry.requests import UNKNOWN_ROUTE

log = logging.getLogger(__name__)

FEWEST, FIRST, MOST = 16, 256, 2000
"""Of the limit: enough to keep a core busy, the one to begin with, and what memory is spent on at most."""
LAG_SECONDS, STANDING_LAG_SECONDS = 0.01, 0.005
"""How late the event loop may be; the second while requests have been waiting for longer than a burst lasts."""
TICK_SECONDS = 0.05
LOG_SECONDS = 1.0
BURST_SECONDS = 0.75
"""For so long everything may wait, and as long: most queues are bursts, which a process catches up with."""
RISE, BURST_RISE = 1.05, 1.3
"""Of the limit, in a tick; the second during a burst, in which many may come to wait for a database that is silent."""


class Priority(IntEnum):
    """What gets a free slot first; the last is refused first."""

    WRITE = 0
    READ = 1
    EXPORT = 2


class Waiter(NamedTuple):
    since: float
    admitted: asyncio.Future[bool]

    def end(self, *, admitted: bool) -> bool:
        """Return whether it still waits: it may have been cancelled."""
        if self.admitted.done():
            return False
        self.admitted.set_result(admitted)
        return True


class Limiter:
    """Slots for requests, and a short queue for them. It serves one event loop."""

    def __init__(self, queue_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self.limit = float(FIRST)
        self.in_flight = 0
        self.waiting = 0
        self._queue_seconds = queue_seconds
        self._clock = clock
        self._queues = tuple(deque[Waiter]() for _ in Priority)
        self._most_waiting = float(MOST)
        """What gets a slot in time at the rate at which slots become free. More is refused at once."""
        self._longest_wait = BURST_SECONDS
        self._caught_up_at = 0.0
        self._left = 0
        self._rate = self._lag = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = self._log_at = 0.0
        self._refused = [0 for _ in Priority]
        self._unlogged = 0

    def try_enter(self) -> bool:
        """Take a slot if one is free and nothing waits for it. `leave` frees it."""
        if self.waiting or self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        if self._timer is None and self.in_flight >= FEWEST:
            self._start()
        return True

    async def wait(self, priority: Priority) -> bool:
        """Wait for a slot, which `leave` frees. False where none becomes free in time, which is most often at once."""
        if self._timer is None:
            self._start()
        if self.waiting >= self._most_waiting and not self._displace(priority):
            self._refused[priority] += 1
            return False
        queue = self._queues[priority]
        waiter = Waiter(self._clock(), asyncio.get_running_loop().create_future())
        queue.append(waiter)
        self.waiting += 1
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            if waiter in queue:
                queue.remove(waiter)
                self.waiting -= 1
            elif not waiter.admitted.cancelled() and waiter.admitted.result():
                self.leave()  # it was admitted, but is cancelled before its next step
            raise

    def leave(self) -> None:
        self.in_flight -= 1
        self._left += 1
        if self.waiting:
            self._refuse_expired()
            self._admit()

    def lend(self) -> None:
        """Free the slot of a request that waits for its client, until `take_back`. Slow clients would hold them all."""
        self.in_flight -= 1
        if self.waiting:
            self._admit()

    def take_back(self) -> None:
        """Whether or not a slot is free: what has begun is not refused."""
        self.in_flight += 1

    def adapt(self, lag_seconds: float, elapsed_seconds: float) -> None:
        """Set the limit by how late the event loop is, and refuse what has waited for too long."""
        self._lag += (lag_seconds - self._lag) / 2
        self._rate += (self._left / elapsed_seconds - self._rate) / 4
        self._left = 0
        saturated, now = self.waiting > 0 or any(self._refused), self._clock()
        if not saturated:
            self._caught_up_at = now
        is_burst = now - self._caught_up_at <= BURST_SECONDS
        acceptable = LAG_SECONDS if is_burst else STANDING_LAG_SECONDS
        if self._lag > acceptable:
            # By more where the lag is longer, since it delays the next change, too.
            self.limit = max(FEWEST, max(0.5, acceptable / self._lag) * min(self.limit, self.in_flight))
        elif saturated:
            # More may be in flight, from before a delay: with a loop that is not late they wait for something else.
            rise = BURST_RISE if is_burst else RISE
            self.limit = min(MOST, rise * max(self.limit, self.in_flight))
        self._longest_wait = max(BURST_SECONDS, self._queue_seconds) if is_burst else self._queue_seconds
        self._most_waiting = MOST if is_burst else max(self.limit, self._rate * self._queue_seconds)
        self._refuse_expired()
        self._admit()

    def _admit(self) -> None:
        for queue in self._queues:
            while queue and self.in_flight < self.limit:
                self.waiting -= 1
                self.in_flight += queue.popleft().end(admitted=True)

    def _refuse_expired(self) -> None:
        latest = self._clock() - self._longest_wait
        for priority in Priority:
            queue = self._queues[priority]
            while queue and queue[0].since < latest:
                self._refuse(priority, queue.popleft())

    def _displace(self, priority: Priority) -> bool:
        """Refuse the newest waiter of the lowest priority below this one, if there is one."""
        for lower in reversed(Priority):
            if lower > priority and self._queues[lower]:
                self._refuse(lower, self._queues[lower].pop())
                return True
        return False

    def _refuse(self, priority: Priority, waiter: Waiter) -> None:
        self.waiting -= 1
        self._refused[priority] += waiter.end(admitted=False)

    def _start(self) -> None:
        self._caught_up_at = self._clock()
        self._schedule_tick()

    def _schedule_tick(self) -> None:
        self._tick_at = self._clock() + TICK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        lag = max(0.0, now - self._tick_at)
        self.adapt(lag, TICK_SECONDS + lag)
        self._report(now)
        self._timer = None
        if self.in_flight >= FEWEST or self.waiting or self._unlogged:
            self._schedule_tick()

    def _report(self, now: float) -> None:
        for priority in Priority:
            if count := self._refused[priority]:
                SHED.labels(priority.name.lower()).inc(count)
                REQUESTS.labels("other", UNKNOWN_ROUTE, "503").inc(count)
        self._unlogged += sum(self._refused)
        self._refused = [0 for _ in Priority]
        if self._unlogged and now >= self._log_at:
            message = "Refused %(refused)d requests: more arrive than this process can answer. Its limit is %(limit)d."
            log.warning(message, {"refused": self._unlogged, "limit": self.limit})
            self._unlogged, self._log_at = 0, now + LOG_SECONDS
