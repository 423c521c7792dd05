"""Floors give the same responses as the app; otherwise a comparison with them would mean nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from httpx import ASGITransport, AsyncClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.floors import bare, open_pool, typed
from plinth.database import DatabaseSettings
from tests.app.factories import product_data

READS = ["/health/live", "/api/products", "/api/products/search?q=quiet+lap", "/api/products/7"]


@pytest.fixture
async def pool(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncpg.Pool]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    async with await open_pool(1) as pool:
        yield pool


@asynccontextmanager
async def floor(app: ASGIApp, pool: asyncpg.Pool, changes: asyncpg.Pool | None = None) -> AsyncIterator[AsyncClient]:
    async def with_pool(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"pool": pool, "changes": changes or pool}}, receive, send)

    async with AsyncClient(transport=ASGITransport(with_pool), base_url="http://floor") as client:
        yield client


@pytest.fixture
async def bare_floor(pool: asyncpg.Pool) -> AsyncIterator[AsyncClient]:
    async with floor(bare.app, pool) as client:
        yield client


@pytest.fixture
async def typed_floor(pool: asyncpg.Pool) -> AsyncIterator[AsyncClient]:
    async with floor(typed.app, pool) as client:
        yield client


@pytest.mark.parametrize("path", READS)
async def test_floors_respond_with_the_same_bytes(
    catalogue: AsyncClient, bare_floor: AsyncClient, typed_floor: AsyncClient, path: str
) -> None:
    expected = await catalogue.get(path)
    assert expected.is_success
    for client in (bare_floor, typed_floor):
        response = await client.get(path)
        assert (response.status_code, response.content) == (expected.status_code, expected.content)


async def test_the_app_reads_what_the_bare_floor_created(catalogue: AsyncClient, bare_floor: AsyncClient) -> None:
    created = await bare_floor.post("/api/products", json=product_data(sku="NEW"))
    assert created.status_code == 201
    assert (await catalogue.get(f"/api/products/{created.json()['id']}")).content == created.content


async def test_the_app_reads_what_the_bare_floor_updated(catalogue: AsyncClient, bare_floor: AsyncClient) -> None:
    updated = await bare_floor.patch("/api/products/7", json={"stock": 99})
    assert (updated.status_code, updated.json()["stock"], updated.json()["version"]) == (200, 99, 2)
    assert (await catalogue.get("/api/products/7")).content == updated.content


async def test_the_bare_floor_has_pools_of_the_sizes_of_the_app(
    catalogue: AsyncClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    defaults = DatabaseSettings()
    state: dict[str, asyncpg.Pool] = {}
    statuses = []

    async def receive() -> Message:
        if state:  # the pools are open; returning from here closes them
            sizes = [state[name].get_max_size() for name in ("pool", "changes")]
            assert sizes == [defaults.read_pool_size, defaults.pool_size]
            async with floor(bare.app, state["pool"], state["changes"]) as client:
                await state["pool"].close()
                statuses.append((await client.patch("/api/products/7", json={"stock": 99})).status_code)
                with pytest.raises(asyncpg.InterfaceError):
                    await client.get("/api/products/7")
        return {"type": "lifespan"}

    async def send(message: Message) -> None:
        pass

    await bare.app({"type": "lifespan", "state": state}, receive, send)
    assert statuses == [200]


async def test_a_connection_is_released_without_a_query(pool: asyncpg.Pool) -> None:
    """The reset query that asyncpg sends by default would be a second round trip, which the app does not make."""
    async with pool.acquire() as connection:
        await connection.execute("SET application_name = 'kept'")
        pid = connection.get_server_pid()
    for _ in range(10):
        async with pool.acquire() as connection:
            if connection.get_server_pid() == pid:
                assert await connection.fetchval("SHOW application_name") == "kept"
                return
    pytest.fail("the pool did not return the connection again")
