"""What each endpoint costs on the wire to PostgreSQL. A new endpoint is added here, or the last test fails.

What is sent is in tests/app/resources.py.
"""

from collections.abc import AsyncIterator

import pytest
from fastapi.routing import APIRoute
from httpx import AsyncClient

from app.main import create_app
from app.routers import ROUTERS
from app.settings import Settings
from plinth.testing.client import serve
from plinth.testing.wire import WirePostgres
from tests.app.factories import create_product
from tests.app.resources import RESOURCES

READ = 1
CREATE = 4  # BEGIN, INSERT, SELECT, COMMIT
UPDATE = 5  # BEGIN, SELECT FOR UPDATE, UPDATE, SELECT, COMMIT
DELETE = 4  # BEGIN, SELECT FOR UPDATE, DELETE, COMMIT
REFUSED = 3  # BEGIN, SELECT FOR UPDATE, ROLLBACK

ROUND_TRIPS: dict[tuple[str, str], int] = {
    ("GET", "/api/products"): READ,
    ("GET", "/api/products/search"): READ,
    ("GET", "/api/products/facets"): 0,  # remembered in the service
    ("GET", "/api/products/{id}"): READ,
    ("POST", "/api/products"): CREATE,
    ("PUT", "/api/products/{id}"): UPDATE,
    ("PATCH", "/api/products/{id}"): UPDATE,
    ("DELETE", "/api/products/{id}"): DELETE,
    ("GET", "/api/categories"): READ,
    ("GET", "/api/categories/{id}"): READ,
    ("POST", "/api/categories"): CREATE,
    ("PUT", "/api/categories/{id}"): UPDATE,
    ("PATCH", "/api/categories/{id}"): UPDATE,
    ("DELETE", "/api/categories/{id}"): DELETE,
    ("GET", "/health/live"): 0,
    ("GET", "/health/ready"): READ,
}


@pytest.fixture
async def wired(wire: WirePostgres, settings: Settings, empty_tables: None) -> AsyncIterator[AsyncClient]:
    """A client of an app whose every word with PostgreSQL crosses the wire, with one of each resource."""
    one_each = {"url": wire.through(settings.database.url), "pool_size": 1, "read_pool_size": 1}
    changed = {
        "database": settings.database.model_copy(update=one_each),
        "cache": settings.cache.model_copy(update={"responses": False}),  # or the second time would cost nothing
    }
    async with serve(create_app(settings.model_copy(update=changed))) as service, service.client() as client:
        await RESOURCES.create_all(client)
        yield client


@pytest.mark.parametrize(("method", "path"), ROUND_TRIPS)
async def test_an_endpoint_takes_its_round_trips(
    wired: AsyncClient, wire: WirePostgres, method: str, path: str
) -> None:
    async def call(number: int) -> None:
        url, body = (RESOURCES.urls(path)[0], None) if method == "GET" else RESOURCES.request(method, path, number)
        answer = await wired.request(method, url, json=body)
        assert answer.is_success, answer.text

    await call(1)  # prepares the statement, which is once in a connection's life
    with wire.counting() as count:
        await call(2)
    assert count.round_trips == ROUND_TRIPS[method, path], count.statements


async def test_a_list_with_every_filter_and_its_total_takes_one(wired: AsyncClient, wire: WirePostgres) -> None:
    for number in (1, 2):
        with wire.counting() as count:
            await wired.get(f"/api/products?limit=2{number}&total=true&category=1&in_stock=true&min_price=1")
    assert count.round_trips == READ, count.statements


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
        await create_product(wired, 1, sku=f"MANY-{number}")
    with wire.counting() as count:
        answer = await wired.get("/api/products?limit=100")
    assert len(answer.json()["items"]) == 23
    assert len(count.statements) == 1


def test_every_endpoint_is_counted() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    assert {(method, route.path_format) for route in routes for method in route.methods or ()} == set(ROUND_TRIPS)
