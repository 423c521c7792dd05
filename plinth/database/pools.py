"""What the pools report: their use, the waits for a connection, and who holds one for too long."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic, perf_counter
from types import CodeType
from typing import Any, NamedTuple

from greenlet import getcurrent
from sqlalchemy import Engine, event
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection

from plinth.database.operations import acquiring
from plinth.database.pulse import Pulse
from plinth.telemetry.metrics import POOL_SIZE, POOL_USED, POOL_WAIT_SECONDS, POOL_WAITING
from plinth.telemetry.requests import current_record

log = logging.getLogger(__name__)

FRAMES = 25


def report_pool(pool: str, size: int, used: int, waiting: int) -> None:
    POOL_SIZE.labels(pool).set(size)
    POOL_USED.labels(pool).set(used)
    POOL_WAITING.labels(pool).set(waiting)


@contextmanager
def timed_wait(pool: str) -> Iterator[None]:
    began_at = perf_counter()
    try:
        yield
    finally:
        POOL_WAIT_SECONDS.labels(pool).observe(perf_counter() - began_at)


class ChangesPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's own pool, which counts and times the callers that have to wait, and has `pulse` watch them."""

    pulse: Pulse
    """Set by a subclass for each engine: SQLAlchemy makes the pool itself, of a class that it is given."""
    waiting = 0

    def connect(self) -> PoolProxiedConnection:
        operation = self.pulse.begin()
        acquiring.set(operation)
        is_waiting = self.checkedout() >= self.size()
        self.waiting += is_waiting
        try:
            with timed_wait("changes") if is_waiting else nullcontext():
                return super().connect()
        finally:
            self.waiting -= is_waiting
            self.pulse.end(operation)

    def report(self) -> None:
        report_pool("changes", self.size(), self.checkedout(), self.waiting)


class Holder(NamedTuple):
    taken_at: float
    route: str | None
    frames: list[tuple[CodeType, int]]
    """The code and the instruction of each. Frames themselves would keep alive all that their variables refer to."""


class HeldConnections:
    """Logs, once, each connection of an engine that has been in use for longer than `seconds`, and who took it."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._seconds = seconds
        self._holders: dict[Any, Holder] = {}
        event.listen(engine, "checkout", self._on_checkout)
        event.listen(engine, "checkin", self._on_checkin)

    def check(self) -> None:
        now = monotonic()
        for record, holder in [*self._holders.items()]:
            if (seconds := now - holder.taken_at) > self._seconds:
                del self._holders[record]
                log.warning(
                    "A connection has been in use for %(seconds).1f s",
                    {"seconds": seconds, "route": holder.route},
                    extra={"stack": formatted(holder.frames)},
                )

    def _on_checkout(self, _connection: Any, record: Any, _proxy: Any) -> None:
        # SQLAlchemy runs this in a greenlet, whose parent is suspended where the caller is.
        parent = getcurrent().parent
        frame = parent.gr_frame if parent else None
        frames: list[tuple[CodeType, int]] = []
        while frame is not None and len(frames) < FRAMES:
            frames.append((frame.f_code, frame.f_lasti))
            frame = frame.f_back
        request = current_record.get()
        self._holders[record] = Holder(monotonic(), (request.route or request.job) if request else None, frames)

    def _on_checkin(self, _connection: Any, record: Any) -> None:
        self._holders.pop(record, None)


def formatted(frames: list[tuple[CodeType, int]]) -> str:
    """As Python formats a stack, the innermost frame last."""
    lines = [(code.co_filename, line_of(code, instruction), code.co_name, None) for code, instruction in frames]
    return "".join(traceback.format_list(reversed(lines)))


def line_of(code: CodeType, instruction: int) -> int:
    """Looked up only for what is logged: to do so for each frame would take as long as all else."""
    for start, end, line in code.co_lines():
        if start <= instruction < end:
            return line or code.co_firstlineno
    return code.co_firstlineno
