"""What becomes of orders, as server-sent events: real servers, since a client in this process is given no stream."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from httpx import AsyncClient, ConnectError, Limits

from app.enums import Role
from app.main import create_app
from app.settings import Settings
from plinth.testing.client import serve, served
from plinth.testing.environment import child_environment
from plinth.testing.network import reserved_port
from tests.app.accounts import headers_of
from tests.app.factories import create_category, create_order, create_product

URL = "/api/orders/events"
MANY = Limits(max_connections=None)
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'Streams'"


class Stream:
    """The events of an open response."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.id = ""

    async def next(self) -> dict[str, Any]:
        """The data of the next event."""
        while True:
            line = await self.line()
            if line.startswith("id: "):
                self.id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                data: dict[str, Any] = orjson.loads(line.removeprefix("data: "))
                await self.line()  # the id
                return data

    async def line(self) -> str:
        async with asyncio.timeout(30):
            return await anext(self._lines)


@asynccontextmanager
async def streaming(client: AsyncClient, after: str = "") -> AsyncIterator[Stream]:
    """A stream whose beginning has arrived."""
    headers = {"Last-Event-ID": after} if after else {}
    async with client.stream("GET", URL, headers=headers, timeout=30) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "no-store" in response.headers["Cache-Control"]
        assert "Content-Encoding" not in response.headers
        stream = Stream(response.aiter_lines())
        stream.id = (await stream.line()).removeprefix("id: ")
        yield stream


@asynccontextmanager
async def client_of(settings: Settings, **database: Any) -> AsyncIterator[AsyncClient]:
    """A client of another instance of the app, on a socket."""
    named = settings.app.model_copy(update={"name": "Streams"})
    changes = {"app": named, "database": settings.database.model_copy(update=database)}
    changed = settings.model_copy(update=changes)
    async with (
        serve(create_app(changed)) as service,
        served(service) as port,
        AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers_of(changed, Role.ADMIN), limits=MANY
        ) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
async def product(client: AsyncClient) -> None:
    await create_category(client)
    await create_product(client, stock=100)


async def test_an_event_arrives_while_the_stream_is_open_and_is_replayed_to_who_missed_it(
    client: AsyncClient, settings: Settings
) -> None:
    await create_order(client, (1, 1))
    async with client_of(settings) as other:
        async with streaming(other) as stream:
            begun = stream.id
            await create_order(client, (1, 1))  # through another instance
            assert (await stream.next()).items() >= {"order_id": 2, "status": "pending"}.items()
            assert (await client.post("/api/orders/1/ship")).status_code == 200
            assert (await stream.next()).items() >= {"order_id": 1, "status": "shipped"}.items()
        assert (await client.post("/api/orders/2/cancel")).status_code == 200
        async with streaming(other, after=begun) as stream:
            missed = [await stream.next() for _ in range(3)]
        assert [(event["order_id"], event["status"]) for event in missed] == [
            (2, "pending"),
            (1, "shipped"),
            (2, "cancelled"),
        ]


async def test_what_has_happened_until_now_can_be_read_as_a_whole(client: AsyncClient, settings: Settings) -> None:
    for _ in range(3):
        await create_order(client, (1, 1))

    async def read(after: str, role: Role = Role.ADMIN) -> list[str]:
        headers = {"Last-Event-ID": after} if after else {}
        answer = await client.get(f"{URL}?live=false", headers=headers | headers_of(settings, role))
        return [line for line in answer.text.splitlines() if line.startswith("id: ")]

    assert await read("") == ["id: 3"]
    assert await read("1") == ["id: 1", "id: 2", "id: 3"]
    assert await read("99") == ["id: 3"]  # of another database: what comes next is not held back
    assert await read("0", Role.USER) == ["id: 0"]  # they are another user's


@pytest.mark.parametrize("id", ["", "x", "-1", "1.5", str(2**63), "1\t2"])
async def test_an_id_that_no_event_has_is_refused(client: AsyncClient, id: str) -> None:
    answer = await client.get(URL, headers={"Last-Event-ID": id})
    assert (answer.status_code, answer.json()["errors"][0]["location"]) == (422, "header")


async def test_a_change_that_fails_is_no_event(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    await create_order(client, (1, 1))
    assert (await client.post("/api/orders/1/ship")).status_code == 200
    assert (await client.post("/api/orders/1/cancel")).status_code == 409
    assert await onlooker.fetchval("SELECT array_agg(status::text ORDER BY id) FROM order_events") == [
        "pending",
        "shipped",
    ]


async def test_a_new_event_deletes_the_old_ones_of_its_user(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    for _ in range(3):
        await create_order(client, (1, 1))
    await onlooker.execute("UPDATE order_events SET created_at = now() - interval '31 days' WHERE order_id < 3")
    await onlooker.execute("UPDATE order_events SET user_id = 1 WHERE order_id = 1")
    await client.post("/api/orders/3/ship")
    events = await onlooker.fetch("SELECT order_id, user_id, status FROM order_events ORDER BY id")
    assert [tuple(event) for event in events] == [(1, 1, "pending"), (3, 3, "pending"), (3, 3, "shipped")]


async def test_two_hundred_idle_streams_hold_no_connection_and_leave_nothing_behind(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    async with client_of(settings, pool_size=1, read_pool_size=1) as other:
        await other.get("/api/orders")
        tasks = len(asyncio.all_tasks())
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(streaming(other)) for _ in range(200)]
            assert (await other.get("/api/orders")).status_code == 200
            await create_order(other, (1, 1))
            assert {(await stream.next())["order_id"] for stream in streams} == {1}
            assert (await other.get("/health/ready")).status_code == 200
            # One for reads, one for the order, one that listens, and one for probes.
            assert await onlooker.fetchval(OPEN) == 4
        async with asyncio.timeout(30):
            while True:
                if len(asyncio.all_tasks()) <= tasks + 1:  # that which listens
                    break
                await asyncio.sleep(0.01)


async def test_an_idle_stream_is_kept_alive(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)  # FastAPI has it importable for tests
    async with client_of(settings) as client, streaming(client) as stream:
        assert [await stream.line() for _ in range(4)] == ["", ": ping", "", ": ping"]


@pytest.fixture
def process(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[str]:
    """The address of the app in another process."""
    with reserved_port() as port:
        environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "APP_ENV": "test"}
        argv = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--log-level", "warning"]
        server = subprocess.Popen(argv, cwd=tmp_path, env=child_environment(**environment))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


async def test_an_event_of_one_process_arrives_on_the_streams_of_another(
    client: AsyncClient, settings: Settings, process: str
) -> None:
    async with AsyncClient(base_url=process, headers=headers_of(settings, Role.ADMIN)) as other:
        async with asyncio.timeout(60):
            while True:
                with suppress(ConnectError):
                    await other.get("/health/live")
                    break
                await asyncio.sleep(0.05)
        async with streaming(other) as stream:
            await create_order(client, (1, 1))
            assert (await stream.next())["order_id"] == 1
