"""A queue, the workers on it, and what a second connection sees of its jobs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from pydantic import BaseModel

from plinth.database import Database, DatabaseSettings
from plinth.jobs import Job, Jobs, JobSettings, Run, Schedule, Task, Worker, task
from plinth.jobs.status import StatusFiles


class Number(BaseModel):
    value: int = 0


@dataclass
class Queue:
    name: str
    settings: DatabaseSettings
    database: Database
    onlooker: asyncpg.Connection

    def job(self, name: str = "work") -> Job[Number]:
        return Job(f"{name}_{self.name}", Number, self.name)  # keys belong to names

    def task(
        self, function: Callable[[Run[Database], Number], Awaitable[None]], name: str = "work", **limits: Any
    ) -> Task[Database, Number]:
        return task(self.job(name), **limits)(function)

    async def enqueue(self, name: str = "work", payload: Number | None = None, **arguments: Any) -> UUID:
        async with self.database.sessions.begin() as session:
            return await Jobs(session).enqueue(self.job(name), payload or Number(), **arguments)

    def worker(
        self, *tasks: Task[Database, Any], schedules: Sequence[Schedule[Any]] = (), **settings: Any
    ) -> Worker[Database]:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[Database]:
            yield self.database

        # It must be notified, since it would not look by itself during the test.
        chosen = JobSettings(**{"poll_seconds": 10, "grace_seconds": 10, "queues": self.name, **settings})
        return Worker(chosen, self.settings, tasks, schedules, lifespan)

    @asynccontextmanager
    async def working(self, *tasks: Task[Database, Any], **arguments: Any) -> AsyncIterator[Worker[Database]]:
        """A worker, which is stopped at the end, and has stored all outcomes then."""
        worker = self.worker(*tasks, **arguments)
        async with running(worker):
            yield worker

    async def jobs(self) -> list[asyncpg.Record]:
        return list(
            await self.onlooker.fetch("SELECT * FROM plinth_jobs WHERE queue = $1 ORDER BY created_at", self.name)
        )

    async def states(self) -> list[str]:
        return [job["state"] for job in await self.jobs()]

    async def one(self) -> asyncpg.Record:
        [job] = await self.jobs()
        return job

    async def make_due(self) -> None:
        """As if the time had come: of attempts that are to be repeated, and of jobs with a delay."""
        await self.onlooker.execute("UPDATE plinth_jobs SET run_at = now() WHERE queue = $1", self.name)
        await self.onlooker.execute("SELECT pg_notify('plinth_jobs', $1)", self.name)


@asynccontextmanager
async def running(worker: Worker[Any]) -> AsyncIterator[None]:
    running = asyncio.create_task(worker.run(StatusFiles(None, 0)))
    try:
        yield
    finally:
        if not worker._is_stopping:  # a second stop would interrupt
            worker.stop()
        await running
