"""What has answered is committed; what failed has left nothing."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from sqlalchemy import Integer, bindparam, column, select, text

from app.dependencies import ReadsDep, SessionDep
from app.main import create_app
from app.settings import Settings
from plinth.database import Query
from plinth.http import FastRoute
from plinth.testing.client import Service, serve

PAIRS = 500
ENTRY = Query(
    int, select(column("entry")).select_from(text("ledger")).where(column("entry") == bindparam("entry", type_=Integer))
)


@pytest.fixture(params=[APIRoute, FastRoute], ids=["APIRoute", "FastRoute"])
async def ledger(
    request: pytest.FixtureRequest, settings: Settings, onlooker: asyncpg.Connection
) -> AsyncIterator[Service]:
    """The app with endpoints that fail in every way, on a table whose constraint is checked at COMMIT."""
    await onlooker.execute("CREATE TABLE ledger (entry int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    async with serve(create_app(settings)) as service:
        router = APIRouter(prefix="/entries", route_class=request.param)

        @router.post("/{entry}", status_code=201)
        async def add_entry(entry: int, session: SessionDep, fail: str = "") -> int:
            await session.execute(text("INSERT INTO ledger VALUES (:entry)"), {"entry": entry})
            if fail == "after":
                session.after_commit(_fail)
            if fail == "answer":
                return "not a number"  # type: ignore[return-value]
            if fail == "raise":
                raise LookupError("a bug")
            if fail == "never":
                service.app.state.waiting.set()
                await asyncio.Event().wait()
            return entry

        @router.get("/{entry}")
        async def get_entry(entry: int, reads: ReadsDep) -> int | None:
            return await reads.first(ENTRY, entry=entry)

        service.app.include_router(router)
        service.app.state.waiting = asyncio.Event()
        yield service
    await onlooker.execute("DROP TABLE ledger")


async def _fail() -> None:
    raise LookupError("cache away")


async def entries(onlooker: asyncpg.Connection) -> list[int]:
    return [row["entry"] for row in await onlooker.fetch("SELECT entry FROM ledger")]


async def test_a_reader_on_another_connection_sees_the_row_after_every_201(
    ledger: Service, onlooker: asyncpg.Connection
) -> None:
    async def write_and_read(numbers: range) -> None:
        for number in numbers:
            assert (await client.post(f"/entries/{number}")).status_code == 201
            assert (await client.get(f"/entries/{number}")).json() == number  # reads have a pool of their own

    async with ledger.client() as client, asyncio.TaskGroup() as group:
        for start in range(4):
            group.create_task(write_and_read(range(start, PAIRS, 4)))
    assert sorted(await entries(onlooker)) == [*range(PAIRS)]


async def test_a_commit_that_fails_answers_an_error(ledger: Service, onlooker: asyncpg.Connection) -> None:
    async with ledger.client() as client:
        assert (await client.post("/entries/1")).status_code == 201
        answer = await client.post("/entries/1")  # the statement is accepted, the COMMIT is not
    assert answer.status_code == 409
    assert await entries(onlooker) == [1]


@pytest.mark.parametrize("fail", ["raise", "answer"])
async def test_a_request_that_fails_leaves_nothing(ledger: Service, onlooker: asyncpg.Connection, fail: str) -> None:
    async with ledger.client() as client:
        answer = await client.post("/entries/1", params={"fail": fail})
    assert answer.status_code == 500
    assert await entries(onlooker) == []


async def test_a_failure_after_the_commit_does_not_deny_it(ledger: Service, onlooker: asyncpg.Connection) -> None:
    async with ledger.client() as client:
        assert (await client.post("/entries/1?fail=after")).status_code == 201
    assert await entries(onlooker) == [1]


async def test_a_request_that_is_cancelled_leaves_nothing_and_no_connection_out(
    settings: Settings, ledger: Service, onlooker: asyncpg.Connection
) -> None:
    async with ledger.client() as client:
        for entry in range(settings.database.pool_size + 1):
            ledger.app.state.waiting.clear()
            request = asyncio.create_task(client.post(f"/entries/{entry}?fail=never"))
            await ledger.app.state.waiting.wait()
            request.cancel()
            await asyncio.wait([request])
        assert (await client.post("/entries/8")).status_code == 201
    assert await entries(onlooker) == [8]
