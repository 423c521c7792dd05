"""Buyers at once: nothing is sold twice, nothing is returned twice, and no transaction waits in a circle."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Response

from app.enums import Role
from app.main import create_app
from app.settings import Settings
from plinth.testing.client import serve
from tests.app.accounts import headers_of
from tests.app.factories import create_category, create_order, create_product, order_data

BUYERS, EACH, BACKENDS = 200, 25, 24
WAITING = """
    SELECT count(DISTINCT pid) FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def shop(settings: Settings, empty_tables: None) -> AsyncIterator[AsyncClient]:
    """The last 50 items, which are of two products, and connections for many buyers."""
    changed = {"pool_size": BACKENDS, "read_pool_size": 2, "pool_timeout_seconds": 60, "statement_timeout_seconds": 60}
    database = settings.database.model_copy(update=changed)
    headers = headers_of(settings, Role.ADMIN)
    async with (
        serve(create_app(settings.model_copy(update={"database": database}))) as service,
        service.client(headers) as client,
    ):
        await create_category(client)
        for number in (1, 2):
            await create_product(client, sku=f"SKU-{number}", stock=EACH)
        yield client


async def at_once(
    requests: Iterable[Coroutine[Any, Any, Response]], onlooker: asyncpg.Connection, url: str, lock: str, backends: int
) -> list[Response]:
    """The answers to requests of which so many wait at the same time, each in a backend, until rows are unlocked."""
    other = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(60):
            async with other.transaction():
                await other.execute(lock)
                tasks = [asyncio.create_task(each) for each in requests]
                while True:
                    if await onlooker.fetchval(WAITING) >= backends:
                        break
                    await asyncio.sleep(0.01)
            return await asyncio.gather(*tasks)
    finally:
        await other.close()


async def stock(onlooker: asyncpg.Connection) -> list[int]:
    return [row["stock"] for row in await onlooker.fetch("SELECT stock FROM products ORDER BY id")]


async def test_two_hundred_buyers_of_the_last_fifty_items_get_fifty(
    shop: AsyncClient, onlooker: asyncpg.Connection, database_url: str
) -> None:
    # Every second one names the products in the opposite order, which would deadlock if they were locked as named.
    orders = [order_data((1, 1), (2, 1)) if number % 2 else order_data((2, 1), (1, 1)) for number in range(BUYERS)]
    buying = [shop.post("/api/orders", json=order) for order in orders]
    rows = "SELECT FROM products ORDER BY id FOR UPDATE"
    answers = await at_once(buying, onlooker, database_url, rows, BACKENDS)
    assert Counter(answer.status_code for answer in answers) == {201: EACH, 409: BUYERS - EACH}
    refusals = {answer.json()["detail"] for answer in answers if answer.status_code == 409}
    assert refusals == {f"Line 1 asks for 1 of SKU-{number}; 0 are left." for number in (1, 2)}
    assert await stock(onlooker) == [0, 0]
    assert await onlooker.fetchval("SELECT sum(quantity) FROM order_lines") == 2 * EACH
    assert await onlooker.fetchval("SELECT count(*) FROM plinth_jobs WHERE name = 'order_mail'") == EACH

    ids = [row["id"] for row in await onlooker.fetch("SELECT id FROM orders")]
    cancelling = [shop.post(f"/api/orders/{id}/cancel") for id in ids]
    answers = await at_once(cancelling, onlooker, database_url, rows, BACKENDS)
    assert {answer.status_code for answer in answers} == {200}
    assert await stock(onlooker) == [EACH, EACH]


async def test_what_is_cancelled_twice_at_once_is_returned_once(
    shop: AsyncClient, onlooker: asyncpg.Connection, database_url: str
) -> None:
    await create_order(shop, (1, 5), (2, 3))
    cancelling = [shop.post("/api/orders/1/cancel") for _ in range(2)]
    answers = await at_once(cancelling, onlooker, database_url, "SELECT FROM orders FOR UPDATE", 2)
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert await stock(onlooker) == [EACH, EACH]
