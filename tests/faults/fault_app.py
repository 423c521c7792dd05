"""What the faults happen to: a service with tables of its own, in the middleware and the lifespan of the real one.

Whichever resources `app/` has, this one has notes, which are read, and writes, each of which is a row of a ledger.
Every answer names what was requested, so that a client can tell that it is the answer to its request.
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Path, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import BigInteger, Column, Float, MetaData, Table, Text, bindparam, cast, func, select, text, update

from app.main import PROBES, lifespan, middleware
from app.settings import get_settings
from plinth.cache import CachedRoutes, Tag, cached_response
from plinth.database import Query
from plinth.errors import NotFoundError
from plinth.http import FastRoute, exception_handlers
from plinth.jobs import Job, Jobs
from plinth.security import limited
from plinth.telemetry import configure_logging
from tests.faults.traffic import LIMIT_PER_SECOND

NOTES = Table("fault_notes", MetaData(), Column("id", BigInteger), Column("text", Text))
WRITE = text("INSERT INTO fault_writes VALUES (:number, :job)")
NOTE = Tag("fault_note:{id}")


@dataclass
class Note:
    id: int
    text: str


class Write(BaseModel):
    id: int


# Their tasks are in tests/faults/fault_worker.py.
EFFECT = Job("effect", Write, "fault_tests")
MAIL = Job("mail", Write, "fault_tests")

BY_ID = Query(Note, select(*NOTES.c).where(NOTES.c.id == bindparam("id", type_=BigInteger)))
PAGE = Query(Note, select(*NOTES.c).order_by(NOTES.c.id).limit(20))
SEARCH = Query(Note, select(*NOTES.c).where(NOTES.c.text.like(bindparam("text"))).limit(20))
ALL = Query(Note, select(*NOTES.c).limit(500))
SLEEP = Query(str, select(cast(func.pg_sleep(bindparam("seconds", type_=Float)), Text)))
Number = Annotated[int, Path(ge=0)]

settings, routes = get_settings(), CachedRoutes()
configure_logging(settings.log_level, settings.log_format, settings.app.name)
app = FastAPI(
    lifespan=partial(lifespan, settings=settings),
    middleware=[*middleware(settings, routes)],
    exception_handlers=exception_handlers,
)
app.router.route_class = FastRoute


@app.get("/notes")
async def list_notes(request: Request) -> list[Note]:
    return list(await request.state.database.reads.all(PAGE))


@app.get("/notes/search")
async def search_notes(text: str, request: Request) -> list[Note]:
    """A search that the database works for."""
    return list(await request.state.database.reads.all(SEARCH, text=f"%{text}%"))


@app.get("/notes/export")
async def export_notes(request: Request) -> StreamingResponse:
    notes = await request.state.database.reads.all(ALL)

    async def lines() -> AsyncIterator[str]:
        for note in notes:
            yield f"{note.id},{note.text}\n"

    return StreamingResponse(lines(), media_type="text/csv")


@app.get("/notes/{id}")
async def get_note(id: Number, request: Request) -> Note:
    note: Note | None = await request.state.database.reads.first(BY_ID, id=id)
    if note is None:
        raise NotFoundError("note", id)
    return note


@app.put("/notes/{id}")
async def put_note(id: Number, data: Note, request: Request) -> Note:
    async with request.state.database.sessions.begin() as session:
        await session.execute(update(NOTES).where(NOTES.c.id == id).values(text=data.text))
        session.after_commit(partial(request.state.cache.invalidate, NOTE(id).name))
    return data


@app.get("/cached/{id:digits}")
@cached_response(ttl=3600.0, tags=[NOTE])
async def get_cached_note(id: Number, request: Request) -> Note:
    return await get_note(id, request)


@app.get("/expiring/{id:digits}")
@cached_response(ttl=1.0, tags=[NOTE])
async def get_expiring_note(id: Number, request: Request) -> Note:
    """It is cached for so short a time that it expires in every outage."""
    return await get_note(id, request)


@app.get("/limited/{id}", dependencies=[limited("fault_tests", f"{LIMIT_PER_SECOND}/second")])
async def get_limited(id: Number) -> Write:
    return Write(id=id)


@app.get("/slow/{seconds}")
async def get_slowly(seconds: float, request: Request) -> None:
    """A read that takes its time in the database."""
    await request.state.database.reads.first(SLEEP, seconds=seconds)


@app.get("/large")
async def get_large(request: Request, size: int = 100_000) -> str:
    await request.state.database.reads.all(PAGE)
    return "x" * size


@app.post("/writes/{number}", status_code=201)
async def write(number: Number, request: Request, job: bool = False, seconds: float = 0) -> Write:
    data = Write(id=number)
    async with request.state.database.sessions.begin() as session:
        id: UUID | None = None
        if job:
            jobs = Jobs(session)
            id = await jobs.enqueue(EFFECT, data)
            await jobs.enqueue(MAIL, data)
        await session.execute(WRITE, {"number": number, "job": id})
        if seconds:
            await session.execute(select(func.pg_sleep(seconds)))
    return data


@app.post("/bodies/{number}", status_code=201)
async def write_body(number: Number, data: Write, request: Request) -> Write:
    """A body that a slow client sends."""
    return await write(number, request)


@app.get("/worker")
async def get_worker() -> int:
    """The process that answers."""
    return os.getpid()


async def live() -> None: ...


for path in PROBES:
    app.get(path)(live)
routes.add_all_of(app)
