"""Routes that make things, with an Idempotency-Key, beside those of the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

from asyncpg import Connection
from fastapi import APIRouter, Depends, Form, Header, UploadFile
from fastapi import Response as FastAPIResponse
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import SecurityScopes
from pydantic import BaseModel
from sqlalchemy import text

from app.dependencies import LinksDep, SessionDep, ValidatorsDep, get_session
from app.main import create_app
from app.settings import Settings
from plinth.errors import ConflictError
from plinth.http import FastRoute
from plinth.security import idempotent
from plinth.testing.client import Service, serve

IDEMPOTENT = idempotent(get_session)
INSERT = text("INSERT INTO idempotent_things (name) VALUES (:name) RETURNING id, version, at")


class ThingCreate(BaseModel):
    name: str


class Thing(ThingCreate):
    id: int
    at: datetime


class Gate:
    """Where a request waits in its transaction, until a test lets it go on or fail."""

    def __init__(self) -> None:
        self.waiting = 0
        self.open = asyncio.Event()
        self.failures = 0
        self.runs = 0

    async def passed(self) -> None:
        self.runs += 1
        self.waiting += 1
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise ConflictError("The first one fails.")


async def principal(name: Annotated[str, Header()] = "") -> str:
    return name


async def unsupported(scopes: SecurityScopes) -> None:
    """What the fast path leaves to FastAPI."""


def router(gate: Gate, prefix: str, *dependencies: Any) -> APIRouter:
    router = APIRouter(prefix=prefix, route_class=FastRoute, dependencies=[*dependencies])

    @router.post("", status_code=201, dependencies=[IDEMPOTENT])
    async def create(
        data: ThingCreate, session: SessionDep, links: LinksDep, validators: ValidatorsDep, response: FastAPIResponse
    ) -> Thing:
        gate.runs += 1
        row = (await session.execute(INSERT, data.model_dump())).one()
        links.created(row.id)
        response.headers.append("X-Twice", "one")
        response.headers.append("X-Twice", "two é")
        validators.set(row.version, row.at)
        return Thing(id=row.id, at=row.at, name=data.name)

    @router.post("/held", status_code=201, dependencies=[IDEMPOTENT])
    async def create_held(data: ThingCreate, session: SessionDep) -> Thing:
        row = (await session.execute(INSERT, data.model_dump())).one()
        await gate.passed()
        return Thing(id=row.id, at=row.at, name=data.name)

    @router.post("/empty", status_code=204, dependencies=[IDEMPOTENT])
    async def create_silently(data: ThingCreate, session: SessionDep) -> None:
        await session.execute(INSERT, data.model_dump())

    @router.post("/raw/{kind}", dependencies=[IDEMPOTENT])
    async def create_raw(kind: str, data: ThingCreate, session: SessionDep) -> FastAPIResponse:
        await session.execute(INSERT, data.model_dump())
        if kind == "stream":
            return StreamingResponse(iter([b"a", b"b"]))
        if kind == "refusal":
            return JSONResponse({"refused": data.name}, 400)
        return FastAPIResponse(b"\x00\xff", 202, {"X-Own": "yes"}, "application/octet-stream")

    @router.post("/principal", dependencies=[idempotent(get_session, principal)])
    async def create_for_principal(data: ThingCreate, session: SessionDep) -> int:
        return int(await session.scalar(INSERT, data.model_dump()))

    @router.post("/form", status_code=201, dependencies=[IDEMPOTENT])
    async def create_by_form(name: Annotated[str, Form()], session: SessionDep) -> str:
        await session.execute(INSERT, {"name": name})
        return name

    @router.post("/file", status_code=201, dependencies=[IDEMPOTENT])
    async def create_by_file(file: UploadFile, session: SessionDep) -> int:
        name = (await file.read()).decode()
        await session.execute(INSERT, {"name": name})
        return len(name)

    @router.post("/timeout", dependencies=[IDEMPOTENT])
    async def show_timeout(session: SessionDep) -> str:
        return str(await session.scalar(text("SHOW lock_timeout")))

    return router


@asynccontextmanager
async def idempotent_service(settings: Settings, gate: Gate) -> AsyncIterator[Service]:
    app = create_app(settings)
    app.include_router(router(gate, "/things"))
    app.include_router(router(gate, "/stock", Depends(unsupported)))

    @app.post("/plain", dependencies=[IDEMPOTENT])
    async def plain() -> str:
        return "done"

    async with serve(app) as service:
        yield service


async def create_table(onlooker: Connection) -> None:
    await onlooker.execute("""
        CREATE TABLE IF NOT EXISTS idempotent_things (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL,
            version integer NOT NULL DEFAULT 3,
            at timestamptz NOT NULL DEFAULT now()
        )
    """)
    await onlooker.execute("DELETE FROM idempotent_things")
