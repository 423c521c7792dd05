"""Whether a server still answers: what waits for a silent one is ended, and nothing more is sent until it is back.

A server that is away often refuses connections, which is noticed at once. One that is silent (a host without power, a
network that drops packets) is noticed by nothing but time, and a statement may take time where all is well. So while
an operation takes long, the server is pinged on another connection. If that is answered, the statement is merely slow,
and has the time that its own timeout gives it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from time import monotonic
from typing import Any

import asyncpg

from plinth.database.errors import CONNECTION_LOST, DATABASE_AWAY, DRIVER_ERRORS, is_connection_lost
from plinth.database.operations import Operation
from plinth.errors import UnavailableError

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""An operation that takes longer is a reason to ping, and so long it is between two pings."""
PING_WAITS = 15
"""A ping is waited for in parts, each of which is at least one turn of the event loop."""
BUSY = 2
"""An event loop that takes so many times as long as these waits should is itself what is slow."""
RECANCEL_SECONDS = 0.1
REFUSES = {"53300", "57P03"}
"""It has no connection left, or is starting or stopping."""
REFUSED_SECONDS = 0.05
"""After a refusal one connection is attempted in this time, until one is made: each costs the server a process."""


class Pulse:
    """Of one server, shared by all connections of a process to it. `ping` raises unless the server answers."""

    def __init__(self, ping: Callable[[], Awaitable[object]], ping_seconds: float) -> None:
        self.number = 0
        """The generation of connections. A server that ends one has usually ended all, so that each loss begins a new
        generation, and a connection of an earlier one is replaced before it is used again."""
        self.answers = 0
        """Statements that were answered."""
        self.listeners: set[asyncpg.Connection] = set()
        """Connections on which nothing is waited for, and which are ended with the others."""
        self._ping, self._wait_seconds = ping, ping_seconds / PING_WAITS
        self._operations: set[Operation] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_silent = False
        self._is_closed = False
        self._refusal: asyncpg.PostgresError | None = None
        self._refused_until = 0.0

    async def connect(self, *arguments: Any, **options: Any) -> asyncpg.Connection:
        """As `asyncpg.connect()`. Raises UnavailableError at once where the server has just refused a connection."""
        if self._refusal is not None:
            if monotonic() < self._refused_until:
                raise UnavailableError(DATABASE_AWAY) from self._refusal
            self._refused_until = monotonic() + REFUSED_SECONDS
        try:
            connection = await asyncpg.connect(*arguments, **options)
        except asyncpg.PostgresError as error:
            if error.sqlstate in REFUSES:
                self._refusal, self._refused_until = error, monotonic() + REFUSED_SECONDS
            raise
        self._refusal = None
        return connection

    def check(self) -> None:
        """Raise UnavailableError while the server is known to be silent: to wait for it again would be in vain."""
        if self.is_silent:
            raise UnavailableError(DATABASE_AWAY)

    def lost(self, number: int | None) -> None:
        """Record that a connection of generation `number` was lost; None is that of one which was only being made."""
        if number == self.number:  # otherwise it was lost together with those before it
            self.number += 1

    def begin(self, connection: Any = None) -> Operation:
        """Watch an operation until `end`. This takes less than a microsecond: no timer of its own, and no task."""
        operation = Operation(monotonic(), connection)
        self._operations.add(operation)
        if self._timer is None:
            self._look_later()
        return operation

    def end(self, operation: Operation) -> None:
        self._operations.discard(operation)

    async def close(self) -> None:
        """Ping no more, for good."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        await _cancelled(self._task)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._operations or self._is_closed:
            return
        self._look_later()
        oldest = min([operation.began_at for operation in self._operations])
        if self._task is None and monotonic() - oldest > LOOK_SECONDS:
            # In a context of its own: this one is of a request, whose deadline is not that of the ping.
            self._task = asyncio.create_task(self._find_out(), context=Context())

    async def _find_out(self) -> None:
        """Ping once; if the server is silent, until it answers."""
        try:
            while not await self._is_answered():  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(LOOK_SECONDS)
            if self.is_silent:
                self.number += 1  # connections that were being made meanwhile may have died, too
                log.info("PostgreSQL answers again")
        finally:
            self.is_silent, self._task = False, None

    async def _is_answered(self) -> bool:
        before = self.answers
        ping = asyncio.ensure_future(self._ping_again_if_lost())
        # Its exception is retrieved, so that asyncio does not log that of a ping which fails as it is cancelled.
        ping.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        began, waits = monotonic(), 0
        try:
            while waits < PING_WAITS and not ping.done():
                await asyncio.wait([ping], timeout=self._wait_seconds)
                waits += 1
            is_late = monotonic() - began > BUSY * waits * self._wait_seconds
            error = ping.exception() if ping.done() else TimeoutError()
            if _is_timeout(error):
                # A pooler whose connections are all busy lets the ping wait as well, but others are answered meanwhile.
                # Code that blocks the event loop, or a lack of CPU time, keeps everything waiting: it is tried again.
                is_answered = self.answers != before or (is_late and not self.is_silent)
            else:
                is_answered = _is_answer(error)
            if not is_answered:
                self._end_all()  # the ping too: if it is only cancelled, asyncpg first sends a cancellation
            return is_answered
        finally:
            await _cancelled(ping)

    async def _ping_again_if_lost(self) -> None:
        """That the connection of the ping has ended, be it by an administrator, says nothing of the server."""
        try:
            await self._ping()
        except DRIVER_ERRORS as error:
            if isinstance(error, TimeoutError) or not is_connection_lost(error):
                raise
            await self._ping()

    def _end_all(self) -> None:
        if not self.is_silent:
            log.warning("PostgreSQL does not answer: what waits for it is ended, and nothing is sent until it does")
        self.is_silent = True
        self.number += 1
        for operation in [*self._operations]:
            operation.stop()
        for connection in [*self.listeners]:
            connection.terminate()


def _is_timeout(error: BaseException | None) -> bool:
    return isinstance(error, TimeoutError) or (error is not None and isinstance(error.__cause__, TimeoutError))


def _is_answer(error: BaseException | None) -> bool:
    """Whether the server answers, be it by a refusal: it may have no connection left, or a new password."""
    if isinstance(error, UnavailableError):
        error = error.__cause__
    if error is None or not isinstance(error, DRIVER_ERRORS):
        return True
    code = (error.sqlstate or "08") if isinstance(error, asyncpg.PostgresError) else "08"
    return not code.startswith("08") and code not in CONNECTION_LOST


async def _cancelled(task: "asyncio.Future[Any] | None") -> None:
    while task is not None and not task.done():
        task.cancel()  # again: on Python 3.11 asyncpg may lose a cancellation that arrives together with an answer
        await asyncio.wait([task], timeout=RECANCEL_SECONDS)
