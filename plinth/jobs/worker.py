"""The worker: claims jobs, runs their tasks, and comes back by itself when PostgreSQL does.

It needs one connection for the queue, to `DATABASE_DIRECT_URL`, since LISTEN does not pass through a pooler.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Generic

import asyncpg

from plinth.database import DatabaseSettings
from plinth.database.connections import driver_arguments
from plinth.database.errors import DRIVER_ERRORS
from plinth.jobs.attempts import attempt
from plinth.jobs.claims import Claim, Claims, Outcome
from plinth.jobs.declarations import StateT, Task
from plinth.jobs.queue import CHANNEL
from plinth.jobs.schedules import Schedule, Timetable
from plinth.jobs.settings import JobSettings
from plinth.jobs.status import StatusFiles

log = logging.getLogger(__name__)

EXTEND_SECONDS = 5.0
RECONNECT_SECONDS = 1.0
CLEAN_UP_SECONDS = 5.0
"""Time for the clean-up of tasks that were interrupted, and for PostgreSQL to take the last outcomes."""


class Worker(Generic[StateT]):
    """Runs the tasks of a service. `run.state` is what `lifespan` opens, once for all tasks."""

    def __init__(
        self,
        settings: JobSettings,
        database: DatabaseSettings,
        tasks: Sequence[Task[StateT, Any]],
        schedules: Sequence[Schedule[Any]],
        lifespan: Callable[[], AbstractAsyncContextManager[StateT]],
    ) -> None:
        self._settings = settings
        self._connect_arguments = driver_arguments(database.direct, "worker")
        self._tasks = {task.job.name: task for task in tasks}
        self._lifespan = lifespan
        self._queues = settings.queue_names or sorted({task.job.queue for task in tasks})
        self._timetable = Timetable([each for each in schedules if each.job.queue in self._queues])
        self._running: dict[Claim, asyncio.Task[None]] = {}
        self._interrupted: dict[Claim, Outcome | None] = {}
        self._outcomes: list[Outcome] = []
        self._claims: Claims | None = None
        self._wake = asyncio.Event()
        self._is_stopping = self._is_out_of_time = False

    async def run(self, status: StatusFiles) -> None:
        """Work until `stop` is called, and then until no job runs and all outcomes are stored."""
        async with self._lifespan() as self._state, status.alive():
            while not self._is_done():
                try:
                    async with self._connected() as claims, asyncio.TaskGroup() as group:
                        others = [group.create_task(each) for each in (self._keep(claims), self._timetable.run(claims))]
                        with status.ready():
                            await self._work(claims)
                        for other in others:
                            other.cancel()
                except* DRIVER_ERRORS as errors:
                    log.warning("The queue cannot be reached; trying again: %r", errors.exceptions[0])
                    await self._woken(RECONNECT_SECONDS)

    def stop(self) -> None:
        """Claim nothing more. What still runs after the grace period, or at a second call, is queued again."""
        if self._is_stopping:
            self._interrupt_all()
            return
        self._is_stopping = True
        self._wake.set()
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.grace_seconds, self._interrupt_all)
        loop.call_later(self._settings.grace_seconds + CLEAN_UP_SECONDS, self._run_out_of_time)

    def _is_done(self) -> bool:
        return self._is_out_of_time or (self._is_stopping and not self._running and not self._outcomes)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Claims]:
        connection = await asyncpg.connect(**self._connect_arguments)
        try:
            await connection.add_listener(CHANNEL, self._on_notification)
            self._claims = Claims(connection, self._queues, [*self._tasks])
            yield self._claims
        finally:
            self._claims = None
            with suppress(*DRIVER_ERRORS):
                await connection.close(timeout=1)

    def _on_notification(self, connection: Any, process: int, channel: str, queue: object) -> None:
        if queue in self._queues:
            self._wake.set()

    async def _work(self, claims: Claims) -> None:
        while not self._is_done():
            if settled := [*self._outcomes]:
                await claims.settle(settled)
                del self._outcomes[: len(settled)]
            free = 0 if self._is_stopping else self._settings.concurrency - len(self._running)
            for claim in await claims.claim(free) if free else []:
                self._running[claim] = asyncio.create_task(self._run(claim))
            if not self._outcomes and not self._is_done():
                await self._woken(self._settings.poll_seconds)

    async def _woken(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _run(self, claim: Claim) -> None:
        try:
            outcome: Outcome | None = await attempt(self._tasks[claim.name], claim, self._state, self._report)
        except asyncio.CancelledError:
            outcome = self._interrupted.get(claim, _given_back(claim))
        finally:
            del self._running[claim]
            self._interrupted.pop(claim, None)
            self._wake.set()
        if outcome is not None:
            self._outcomes.append(outcome)

    async def _report(self, claim: Claim, percent: int) -> None:
        if self._claims is not None:
            with suppress(*DRIVER_ERRORS):  # while the queue cannot be reached, work goes on
                await self._claims.report(claim, percent)

    async def _keep(self, claims: Claims) -> None:
        """Extend the leases, end what was cancelled or lost, and take back what other workers have left."""
        unknown_after = timedelta(hours=self._settings.unknown_hours)
        while True:
            held = [*self._running]
            leases = await claims.extend(held)
            for claim in held:
                if claim.lease not in leases:
                    log.error("Job %s (%s) lost its lease: the worker was silent for too long", claim.id, claim.name)
                    self._interrupt(claim, None)
                elif leases[claim.lease]:
                    self._interrupt(claim, Outcome(claim, "cancelled"))
            if await claims.take_back():
                self._wake.set()
            await claims.give_up_unknown(unknown_after)
            await asyncio.sleep(EXTEND_SECONDS)

    def _interrupt(self, claim: Claim, outcome: Outcome | None) -> None:
        if (task := self._running.get(claim)) is not None:
            self._interrupted[claim] = outcome
            task.cancel()

    def _interrupt_all(self) -> None:
        for claim in [*self._running]:
            self._interrupt(claim, _given_back(claim))

    def _run_out_of_time(self) -> None:
        self._is_out_of_time = True
        self._wake.set()


def _given_back(claim: Claim) -> Outcome:
    return Outcome(claim, "queued", "Its worker was stopped.", is_refunded=True)
