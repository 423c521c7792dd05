"""The dashboard reads its parts at the same time, waits for none too long, and keeps each until a change."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from httpx import AsyncClient

from app.enums import Role
from app.services import dashboard
from app.settings import Settings
from plinth.testing.client import Service
from tests.app.accounts import headers_of
from tests.app.factories import create_category, create_order, create_product

PARTS = ["counts", "latest", "bought", "new"]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture(autouse=True)
async def ordered(client: AsyncClient, service: Service) -> None:
    await create_category(client)
    for number in (1, 2, 3):
        await create_product(client, sku=f"SKU-{number}", name=f"Product {number}", price=f"{number}.50")
    await create_order(client, (1, 2), (2, 1))
    await create_order(client, (2, 2))
    await create_order(client, (3, 5))


@pytest.fixture
async def locked(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A transaction with a connection of its own, for locks that queries wait for."""
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


async def until_waiting(onlooker: asyncpg.Connection, queries: int) -> None:
    async with asyncio.timeout(20):
        while await onlooker.fetchval(WAITING) != queries:
            pass


async def test_each_part_is_of_the_user(client: AsyncClient, service: Service, settings: Settings) -> None:
    await client.post("/api/orders/3/cancel")
    found = (await client.get("/api/dashboard")).json()
    assert [(each["status"], each["orders"], each["total"]) for each in found["counts"]] == [
        ("pending", 2, "10.50"),
        ("cancelled", 1, "17.50"),
    ]
    assert [(each["id"], each["status"], each["total"]) for each in found["latest"]] == [
        (3, "cancelled", "17.50"),
        (2, "pending", "5.00"),
        (1, "pending", "5.50"),
    ]
    assert found["bought"] == [
        {"product_id": 2, "name": "Product 2", "quantity": 3},
        {"product_id": 1, "name": "Product 1", "quantity": 2},
    ]
    assert [each["id"] for each in found["new"]] == [3, 2, 1]
    assert found["missing"] == []
    async with service.client(headers_of(settings, Role.USER)) as other:
        theirs = (await other.get("/api/dashboard")).json()
    assert theirs == {"counts": [], "latest": [], "bought": [], "new": found["new"], "missing": []}


async def test_it_is_read_once_and_again_after_each_change(client: AsyncClient, service: Service) -> None:
    reads = service.state["database"].reads

    async def read() -> int:
        """How many statements that took, without those for the principal."""
        await client.get("/api/users/me")
        before = reads.statements
        assert (await client.get("/api/dashboard")).json()["missing"] == []
        return int(reads.statements - before)

    assert [await read(), await read()] == [4, 0]
    await create_order(client, (1, 1))
    assert [await read(), await read()] == [4, 0]
    await client.post("/api/orders/1/ship")
    assert [await read(), await read()] == [3, 0]
    await client.post("/api/orders/2/cancel")
    assert [await read(), await read()] == [4, 0]
    await client.patch("/api/products/1", json={"name": "Renamed"})
    assert [await read(), await read()] == [1, 0]


async def test_a_part_past_its_deadline_is_missing_and_its_query_is_cancelled(
    client: AsyncClient, onlooker: asyncpg.Connection, locked: asyncpg.Connection
) -> None:
    await locked.execute("LOCK TABLE order_lines IN ACCESS EXCLUSIVE MODE")
    found = (await client.get("/api/dashboard")).json()
    assert (found["missing"], found["bought"]) == (["bought"], None)
    assert [len(found[part]) for part in ("counts", "latest", "new")] == [1, 3, 3]
    await until_waiting(onlooker, 0)
    await locked.execute("ROLLBACK")
    assert (await client.get("/api/dashboard")).json()["missing"] == []


async def test_the_parts_are_read_at_the_same_time_and_cancelled_with_the_request(
    client: AsyncClient, onlooker: asyncpg.Connection, locked: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "PART_SECONDS", 60.0)
    await client.get("/api/users/me")
    await locked.execute("LOCK TABLE orders, order_lines, products IN ACCESS EXCLUSIVE MODE")
    request = asyncio.create_task(client.get("/api/dashboard"))
    await until_waiting(onlooker, len(PARTS))
    request.cancel()
    await asyncio.wait([request])
    await until_waiting(onlooker, 0)
    await locked.execute("ROLLBACK")
    assert (await client.get("/api/dashboard")).json()["missing"] == []
