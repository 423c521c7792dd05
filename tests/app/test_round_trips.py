"""What each endpoint costs on the wire to PostgreSQL. A new endpoint is added here, or the last test fails."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from httpx import AsyncClient

from app.main import create_app
from app.routers import ROUTERS
from app.settings import Settings
from plinth.testing.client import serve
from plinth.testing.wire import WirePostgres
from tests.app.factories import create_category, create_product, product_data

READ = 1
CREATE = 4  # BEGIN, INSERT, SELECT, COMMIT
UPDATE = 5  # BEGIN, SELECT FOR UPDATE, UPDATE, SELECT, COMMIT
DELETE = 4  # BEGIN, SELECT FOR UPDATE, DELETE, COMMIT
REFUSED = 3  # BEGIN, SELECT FOR UPDATE, ROLLBACK

ROUND_TRIPS: dict[tuple[str, str], tuple[int, str, dict[str, Any]]] = {
    ("GET", "/api/products"): (READ, "?limit=20&total=true&category=1&in_stock=true", {}),
    ("GET", "/api/products/search"): (READ, "?q=laptop", {}),
    ("GET", "/api/products/facets"): (0, "", {}),  # remembered in the service
    ("GET", "/api/products/{id}"): (READ, "", {}),
    ("POST", "/api/products"): (CREATE, "", product_data(sku="NEW-{n}")),
    ("PUT", "/api/products/{id}"): (UPDATE, "", product_data(sku="PUT-{n}")),
    ("PATCH", "/api/products/{id}"): (UPDATE, "", {"stock": 1}),
    ("DELETE", "/api/products/{id}"): (DELETE, "", {}),
    ("GET", "/api/categories"): (READ, "", {}),
    ("GET", "/api/categories/{id}"): (READ, "", {}),
    ("POST", "/api/categories"): (CREATE, "", {"name": "New {n}"}),
    ("PUT", "/api/categories/{id}"): (UPDATE, "", {"name": "Put {n}"}),
    ("PATCH", "/api/categories/{id}"): (UPDATE, "", {"description": "New"}),
    ("DELETE", "/api/categories/{id}"): (DELETE, "", {}),
    ("GET", "/health/live"): (0, "", {}),
    ("GET", "/health/ready"): (READ, "", {}),
}


@pytest.fixture
async def wired(wire: WirePostgres, settings: Settings, empty_tables: None) -> AsyncIterator[AsyncClient]:
    """A client of an app whose every word with PostgreSQL crosses the wire."""
    one_each = {"url": wire.through(settings.database.url), "pool_size": 1, "read_pool_size": 1}
    changed = {
        "database": settings.database.model_copy(update=one_each),
        "cache": settings.cache.model_copy(update={"responses": False}),  # or the second time would cost nothing
    }
    async with serve(create_app(settings.model_copy(update=changed))) as service, service.client() as client:
        for number in (1, 2, 3):
            await create_category(client, f"Category {number}")
        for number in (1, 2):
            await create_product(client, 3, sku=f"SKU-{number}")  # 1 and 2 can be deleted
        yield client


@pytest.mark.parametrize(("method", "path"), ROUND_TRIPS)
async def test_an_endpoint_takes_its_round_trips(
    wired: AsyncClient, wire: WirePostgres, method: str, path: str
) -> None:
    expected, query, body = ROUND_TRIPS[method, path]

    async def call(number: int) -> None:
        json = {key: value.format(n=number) if isinstance(value, str) else value for key, value in body.items()}
        answer = await wired.request(method, path.format(id=number) + query, json=json or None)
        assert answer.is_success, answer.text

    await call(1)  # prepares the statement, which is once in a connection's life
    with wire.counting() as count:
        await call(2)
    assert count.round_trips == expected, count.statements


@pytest.mark.parametrize(("version", "expected"), [('"1.x"', UPDATE), ('"0.x"', REFUSED)])
async def test_a_condition_costs_no_round_trip(
    wired: AsyncClient, wire: WirePostgres, version: str, expected: int
) -> None:
    for path in ("/api/products", "/api/categories"):
        await wired.patch(f"{path}/1", json={"name": "Prepared"}, headers={"If-Match": version})
        with wire.counting() as count:
            answer = await wired.patch(f"{path}/2", json={"name": "Changed"}, headers={"If-Match": version})
        assert count.round_trips == expected, count.statements
        assert answer.status_code == (200 if expected == UPDATE else 412)


async def test_a_list_takes_one_statement_however_long(wired: AsyncClient, wire: WirePostgres) -> None:
    await wired.get("/api/products?limit=100")
    for number in range(20):
        await create_product(wired, 3, sku=f"MANY-{number}")
    with wire.counting() as count:
        answer = await wired.get("/api/products?limit=100")
    assert len(answer.json()["items"]) == 22
    assert len(count.statements) == 1


def test_every_endpoint_is_counted() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    assert {(method, route.path_format) for route in routes for method in route.methods or ()} == set(ROUND_TRIPS)
