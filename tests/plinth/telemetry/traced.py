"""The app with endpoints that do a bit of everything, and a worker with two jobs. It stands in for `app`."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Integer, bindparam, select

from app.dependencies import WorkerState
from app.main import create_app, worker_lifespan
from app.settings import Settings, get_settings
from plinth.cache import cached_response
from plinth.cli import create_cli
from plinth.database import Query
from plinth.errors import NotFoundError, UnavailableError
from plinth.http import FastRoute
from plinth.jobs import GiveUp, Job, Jobs, Run, Worker, task
from plinth.security import PUBLIC
from plinth.telemetry import configure_logging, configure_sentry

SECRET = "ada@example.com"  # what no trace and no event may contain
QUEUE = os.environ.get("JOB_QUEUES", "traced")


class Number(BaseModel):
    value: int


@dataclass(frozen=True, slots=True)
class Row:
    number: int


ADD = Query(Row, select((bindparam("number", type_=Integer) + 1).label("number")))
CALL = Job("call", Number, QUEUE)
FAIL = Job("fail", Number, QUEUE)
CLOSE = Job("close", Number, QUEUE)
REPEAT = Job("repeat", Number, QUEUE)
JOBS = {job.name: job for job in (CALL, FAIL, CLOSE, REPEAT)}


async def state_of(request: Request) -> Any:
    return request.state


StateDep = Annotated[Any, Depends(state_of)]
router = APIRouter(prefix="/traced", route_class=FastRoute, dependencies=[PUBLIC])


@router.get("/numbers/{number}")
async def all_of_it(number: int, job: str, state: StateDep) -> int:
    row = await state.database.reads.first(ADD, number=number)
    await state.redis.get(SECRET)
    await state.outgoing.get(f"{os.environ['CALLED']}/called?token={SECRET}")
    async with state.database.sessions.begin() as session:
        await Jobs(session).enqueue(JOBS[job], Number(value=number))
    return int(row.number)


@router.get("/cached", response_model=int)
@cached_response(ttl=600.0, tags=[])
async def cached(state: StateDep) -> int:
    row = await state.database.reads.first(ADD, number=1)
    return int(row.number)


@router.get("/invalid")
async def invalid(state: StateDep) -> None:
    """PostgreSQL quotes the value in its error."""
    async with state.database.sessions.begin() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("SELECT $1::text::int", (SECRET,))


@router.get("/unavailable")
async def unavailable() -> None:
    raise UnavailableError("It is away.")


@router.get("/missing")
async def missing() -> None:
    raise NotFoundError("number", 1)


def burn(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


@router.get("/burn")
async def burning(seconds: float = 0.1) -> None:
    burn(seconds)


@router.get("/endless")
async def endless() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            burn(0.01)
            yield b"part\n"

    return StreamingResponse(parts())


@task(CALL)
async def call(run: Run[WorkerState], payload: Number) -> None:
    await run.state["database"].reads.first(ADD, number=payload.value)


@task(FAIL, attempts=1)
async def fail(run: Run[WorkerState], payload: Number) -> None:
    raise LookupError("No number is right.")


@task(CLOSE)
async def close(run: Run[WorkerState], payload: Number) -> None:
    raise GiveUp("It is closed.")


@task(REPEAT, attempts=2)
async def repeat(run: Run[WorkerState], payload: Number) -> None:
    raise LookupError("No number is right yet.")


def create_worker(settings: Settings) -> Worker[WorkerState]:
    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    configure_sentry(settings.sentry, settings.app.env, settings.app.version)
    return Worker(settings.job, settings.database, [call, fail, close, repeat], [], partial(worker_lifespan, settings))


if __name__ == "__main__":
    create_cli(get_settings, "", worker="tests.plinth.telemetry.traced:create_worker")()
app = create_app()
app.include_router(router)
