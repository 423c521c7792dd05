"""A service that enqueues and a worker that does it, with tables of their own: whichever jobs `app/` has, these run.

Each request is a row, and enqueues two jobs in its transaction: one with an effect on the database, which is a row of a
ledger without any constraint, and one that sends a mail, which is a line of a file.
"""

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import uvloop
from fastapi import FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import text

from plinth.database import Database, open_database
from plinth.errors import ConflictError
from plinth.http import exception_handlers
from plinth.jobs import Job, Jobs, JobSettings, Run, Worker, claims, once, task, worker
from plinth.jobs.status import StatusFiles
from plinth.settings import Settings, load_settings

Point = Literal["claimed", "middle", "effect", "returned", "poison"]
POINTS: tuple[Point, ...] = ("claimed", "middle", "effect", "returned")
"""After the claim; in the middle of the transaction; after it (or after the mail); before the acknowledgement."""

TABLES = """
    CREATE TABLE requests (number int PRIMARY KEY);
    CREATE TABLE ledger (number int NOT NULL, job_id uuid NOT NULL, attempt int NOT NULL)
"""


class Order(BaseModel):
    number: int


EFFECT = Job("effect", Order, "fault_tests")
MAIL = Job("mail", Order, "fault_tests")
POISON = Job("poison", Order, "fault_tests")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    async with open_database(load_settings(Settings).database, "requests") as database:
        yield {"database": database}


app = FastAPI(lifespan=lifespan, exception_handlers=exception_handlers)


@app.get("/ready")
async def ready() -> None:
    """It is served from the end of the lifespan's start on."""


@app.post("/requests/{number}", status_code=201)
async def request(number: int, request: Request, refused: bool = False) -> None:
    async with request.state.database.sessions.begin() as session:
        await session.execute(text("INSERT INTO requests VALUES (:number)"), {"number": number})
        jobs = Jobs(session)
        await jobs.enqueue(EFFECT, Order(number=number))
        await jobs.enqueue(MAIL, Order(number=number))
        if refused:
            raise ConflictError("It is rolled back.")


@dataclass
class State:
    database: Database
    mails: Path
    reach: Callable[[Point], None]


@task(EFFECT, attempts=1000, backoff_seconds=0)
async def effect(run: Run[State], order: Order) -> None:
    async with run.state.database.sessions.begin() as session:
        if await once(session, run):
            values = {"number": order.number, "job": run.id, "attempt": run.attempt}
            await session.execute(text("INSERT INTO ledger VALUES (:number, :job, :attempt)"), values)
        run.state.reach("middle")
    run.state.reach("effect")


@task(MAIL, attempts=1000, backoff_seconds=0)
async def mail(run: Run[State], order: Order) -> None:
    """It cannot be sent exactly once, so that each mail has the same Message-ID in all attempts."""
    file = os.open(run.state.mails, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d <%s@example.com>\n" % (order.number, str(run.id).encode()))
    os.fsync(file)
    os.close(file)
    run.state.reach("effect")


@task(POISON, attempts=3, backoff_seconds=0)
async def poison(run: Run[State], order: Order) -> None:
    run.state.reach("poison")


@dataclass(frozen=True)
class Orders:
    """What a worker process does: announce `point` when it passes there after `skip` times, and wait to be killed."""

    database_url: str
    folder: Path
    point: Point | None = None
    skip: int = 0
    waits: bool = False
    """It goes on when it receives a message."""


def work(orders: Orders, driver: Connection) -> None:
    """The main function of a worker process. It sends each claim, and the point when it is there."""
    logging.basicConfig(filename=orders.folder / "worker.log", format="%(process)d %(levelname)s %(message)s")
    # Short enough for a hundred kills; the proportions are those of production.
    claims.LEASE, worker.EXTEND_SECONDS, worker.RECONNECT_SECONDS = timedelta(seconds=1.5), 0.5, 0.1
    passed = Counter[Point]()

    def reach(point: Point) -> None:
        passed[point] += 1
        if point == orders.point and passed[point] == orders.skip + 1:
            driver.send(point)
            if orders.waits:
                driver.recv()
            while not orders.waits:
                signal.pause()

    class Announced(claims.Claims):
        async def claim(self, most: int) -> list[claims.Claim]:
            claimed = await super().claim(most)
            for claim in claimed:
                driver.send((claim.id, claim.attempt))
            if claimed:
                reach("claimed")
            return claimed

        async def settle(self, outcomes: Sequence[claims.Outcome]) -> None:
            reach("returned")
            await super().settle(outcomes)
            driver.send("settled")

    worker.Claims = Announced  # type: ignore[attr-defined]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(orders, reach))


async def _work(orders: Orders, reach: Callable[[Point], None]) -> None:
    database = Settings(database={"url": orders.database_url}).database

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[State]:
        async with open_database(database, "worker") as opened:
            yield State(opened, orders.folder / "mails", reach)

    settings = JobSettings(concurrency=3, poll_seconds=0.2)
    running = Worker(settings, database, (effect, mail, poison), (), lifespan)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.stop)
    await running.run(StatusFiles(None, 0))
