"""Deadlines: what is not done in time is cancelled where it waits, be it for a pool, a statement or another server."""

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from plinth.errors import DeadlineError

_innermost: ContextVar["deadline | None"] = ContextVar("deadline", default=None)


class deadline:  # noqa: N801 - used like asyncio.timeout; a generator would cost half as much again
    """Raise DeadlineError in a block (`async with deadline(2.0):`) that takes longer. A nested one only shortens it.

    With None, the block ends early by `expire` alone.
    """

    __slots__ = ("ended", "lifted", "outer", "timeout")

    def __init__(self, seconds: float | None) -> None:
        self.timeout = asyncio.timeout(seconds)
        self.ended = False  # for the tasks that were started in the block and outlive it
        self.lifted = False

    async def __aenter__(self) -> None:
        self.outer = _innermost.get()
        await self.timeout.__aenter__()
        _innermost.set(self)

    async def __aexit__(self, *raised: Any) -> None:
        self.ended = True
        _innermost.set(self.outer)
        try:
            await self.timeout.__aexit__(*raised)
        except TimeoutError as error:
            raise DeadlineError from error
        cause = raised[1]  # it may be what the cancellation was turned into
        if isinstance(cause, Exception) and self.timeout.expired() and not isinstance(cause, DeadlineError):
            raise DeadlineError from cause

    def expire(self) -> None:
        """Act as if the time had passed. Does nothing once the deadline is lifted or the block has ended."""
        if not (self.ended or self.lifted or self.timeout.expired()):
            self.timeout.reschedule(asyncio.get_running_loop().time())


def _current() -> Iterator[deadline]:
    each = _innermost.get()
    while each is not None:
        if not each.ended:
            yield each
        each = each.outer


def remaining() -> float | None:
    """Return the seconds until the nearest deadline, 0.0 at the least; None without one."""
    instants = [instant for each in _current() if (instant := each.timeout.when()) is not None]
    return max(0.0, min(instants) - asyncio.get_running_loop().time()) if instants else None


def lift() -> None:
    """From here on no deadline interrupts. Raises DeadlineError if one has passed and its cancellation is under way."""
    for each in _current():
        if each.timeout.expired():
            raise DeadlineError
        if each.timeout.when() is not None:
            each.timeout.reschedule(None)
        each.lifted = True
