"""What becomes of a request whose client disconnects: on real connections, with statements of a real database."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
from fastapi import APIRouter, FastAPI, Request
from sqlalchemy import Text, cast, func, select, text

from app.dependencies import ReadsDep, SessionDep
from app.main import create_app
from app.settings import Settings
from plinth.cache import cached_response
from plinth.database import Query
from plinth.http import FastRoute
from plinth.http import disconnects as watched
from plinth.resilience.deadline import lift
from plinth.testing.client import serve
from tests.plinth.serving.wire import Wire, wire

HANG_SECONDS = 60
LOCK = 735_011
"""The statements of the endpoints wait for it, and the tests hold it."""
LOCKED = Query(str, select(cast(func.pg_advisory_xact_lock(LOCK), Text)))
WAITING = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK} AND NOT granted"


class Gate:
    def __init__(self) -> None:
        self.entered, self.opened, self.passed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self.entered.set()
        await self.opened.wait()
        self.passed.set()


def router_of(gate: Gate) -> APIRouter:
    router = APIRouter(route_class=FastRoute)

    @router.get("/read")
    async def read(reads: ReadsDep) -> None:
        await reads.first(LOCKED)

    @router.get("/in-session")
    async def in_session(session: SessionDep) -> None:
        await session.first(LOCKED)

    @router.get("/cached")
    @cached_response(ttl=60.0, tags=[])
    async def cached(reads: ReadsDep) -> None:
        await reads.first(LOCKED)

    @router.get("/committing")
    async def committing() -> None:
        await asyncio.sleep(5 * watched.WATCHED_AFTER_SECONDS)
        lift()
        await gate.wait()

    @router.get("/gate")
    async def slow() -> str:
        await gate.wait()
        return "passed"

    @router.get("/body")
    async def body(request: Request) -> str:
        await gate.wait()
        return (await request.body()).decode()

    @router.api_route("/write", methods=["POST", "PUT", "PATCH", "DELETE"])
    async def write(session: SessionDep) -> None:
        await session.first(LOCKED)
        await session.execute(text("INSERT INTO written VALUES (1)"))

    return router


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def app(settings: Settings, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr("app.main.ROUTERS", [router_of(gate)])
    monkeypatch.setattr(watched, "WATCHED_AFTER_SECONDS", 0.01)
    own = settings.cache.model_copy(update={"namespace": f"test-{uuid4()}"})
    return create_app(settings.model_copy(update={"cache": own}))


@asynccontextmanager
async def connected(app: FastAPI, *requests: str) -> AsyncIterator[Wire]:
    """A connection on which these requests were sent together."""
    async with serve(app) as service, wire(service) as connection:
        for each in requests:
            connection.writer.write(f"{each} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        yield connection


@pytest.fixture
async def locked(onlooker: asyncpg.Connection) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Holds the lock, and waits until so many statements wait for it."""

    async def waiting(count: int) -> None:
        await until(lambda: onlooker.fetchval(f"SELECT ({WAITING}) = {count}"))

    await onlooker.execute(f"SELECT pg_advisory_lock({LOCK})")
    yield waiting
    await onlooker.execute("SELECT pg_advisory_unlock_all()")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ended(connection: Wire) -> None:
    """Wait for the end of the requests of a connection."""
    await asyncio.wait_for(asyncio.gather(*connection.protocol.tasks), HANG_SECONDS)


Locked = Callable[[int], Awaitable[None]]


@pytest.mark.parametrize("path", ["/read", "/in-session", "/cached"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_statement_of_a_read_ends_with_its_client(
    app: FastAPI, locked: Locked, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    caplog.set_level(logging.INFO, "app.access")
    async with connected(app, f"{method} {path}") as connection:
        await locked(1)
        connection.writer.close()
        await ended(connection)
        await locked(0)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert f"{method} {path} 499" in [record.getMessage() for record in caplog.records]


async def test_a_client_that_has_ended_its_side_of_the_connection_has_left(app: FastAPI, locked: Locked) -> None:
    """Uvicorn closes the connection then, so there is no response, with the watch and without it."""
    async with connected(app, "GET /read") as connection:
        await locked(1)
        connection.writer.write_eof()
        assert await connection.answer() is None
        await locked(0)


async def test_a_load_that_others_wait_for_goes_on(app: FastAPI, locked: Locked, onlooker: asyncpg.Connection) -> None:
    async with serve(app) as service, wire(service) as leaving, wire(service) as staying:
        for each in (leaving, staying):
            each.writer.write(b"GET /cached HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await locked(1)
        leaving.writer.close()
        await ended(leaving)
        await locked(1)
        await onlooker.execute("SELECT pg_advisory_unlock_all()")
        answer = await staying.answer()
    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_write_does_not_end_with_its_client(
    app: FastAPI, locked: Locked, onlooker: asyncpg.Connection, method: str
) -> None:
    await onlooker.execute("CREATE TABLE written (number int)")
    try:
        async with connected(app, f"{method} /write") as connection:
            await locked(1)
            connection.writer.close()
            await until(lambda: asyncio.sleep(0, connection.protocol.cycle.disconnected))
            await onlooker.execute("SELECT pg_advisory_unlock_all()")
            await ended(connection)
        assert await onlooker.fetchval("SELECT count(*) FROM written") == 1
    finally:
        await onlooker.execute("DROP TABLE written")


async def test_what_a_get_commits_is_not_interrupted(app: FastAPI, gate: Gate) -> None:
    async with connected(app, "GET /committing") as connection:
        await gate.entered.wait()
        connection.writer.close()
        await until(lambda: asyncio.sleep(0, connection.protocol.cycle.disconnected))
        gate.opened.set()
        await ended(connection)
    assert gate.passed.is_set()


async def be_watched(gate: Gate) -> None:
    await gate.entered.wait()
    await asyncio.sleep(5 * watched.WATCHED_AFTER_SECONDS)  # were it too short, a test would show less, not fail


async def open_once_watched(gate: Gate) -> None:
    await be_watched(gate)
    gate.opened.set()


async def test_a_client_that_stays_is_answered_and_keeps_its_connection(app: FastAPI, gate: Gate) -> None:
    async with connected(app, "GET /gate") as connection:
        await open_once_watched(gate)
        for _ in range(2):
            answer = await connection.answer()
            assert answer is not None
            assert (answer.status, answer.body) == (200, b'"passed"')
            connection.writer.write(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def test_pipelined_requests_are_all_answered(app: FastAPI, gate: Gate) -> None:
    async with connected(app, *["GET /gate"] * 20) as connection:
        await open_once_watched(gate)
        answers = [await connection.answer() for _ in range(20)]
    assert [answer and answer.body for answer in answers] == [b'"passed"'] * 20


@pytest.mark.parametrize("early", [b"", b"a", b"abc"], ids=["late", "in part", "whole"])
async def test_the_body_of_a_watched_read_is_complete(app: FastAPI, gate: Gate, early: bytes) -> None:
    async with connected(app) as connection:
        connection.writer.write(b"GET /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n" + early)
        await open_once_watched(gate)
        connection.writer.write(b"abc"[len(early) :])
        answer = await connection.answer()
    assert answer is not None
    assert answer.body == b'"abc"'


async def test_no_more_than_one_part_of_a_body_is_kept(app: FastAPI, gate: Gate) -> None:
    body = b"a" * 200_000
    async with connected(app) as connection:
        connection.writer.write(b"GET /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        connection.writer.write(body)
        await be_watched(gate)
        await until(lambda: asyncio.sleep(0, connection.protocol.flow.read_paused))
        gate.opened.set()
        answer = await connection.answer()
    assert answer is not None
    assert answer.body == b'"%s"' % body
