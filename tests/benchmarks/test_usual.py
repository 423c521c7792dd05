"""The usual template reads and writes the same products as the app."""

from collections.abc import AsyncIterator
from random import Random

import pytest
from httpx import AsyncClient

from benchmarks.caching import USUAL_HIT
from benchmarks.frameworks.usual import main
from benchmarks.scenarios import SCENARIOS
from plinth.testing.client import serve
from tests.app.factories import product_data


@pytest.fixture
async def usual(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    main.cache.clear()
    async with serve(main.app) as service, service.client() as client:
        yield client


@pytest.mark.parametrize("path", ["/health/live", "/api/products/7"])
async def test_it_responds_with_the_same_bytes(catalogue: AsyncClient, usual: AsyncClient, path: str) -> None:
    expected, response = await catalogue.get(path), await usual.get(path)
    assert (response.status_code, response.content) == (200, expected.content)


async def test_it_lists_the_same_items(catalogue: AsyncClient, usual: AsyncClient) -> None:
    items = (await usual.get("/api/products")).json()["items"]
    assert len(items) == 20
    assert items == (await catalogue.get("/api/products")).json()["items"]


async def test_the_app_reads_what_it_created(catalogue: AsyncClient, usual: AsyncClient) -> None:
    created = await usual.post("/api/products", json=product_data(sku="NEW"))
    assert created.status_code == 201
    assert (await catalogue.get(f"/api/products/{created.json()['id']}")).content == created.content


async def test_the_app_reads_what_it_updated(catalogue: AsyncClient, usual: AsyncClient) -> None:
    updated = await usual.patch("/api/products/7", json={"stock": 99})
    assert (updated.status_code, updated.json()["stock"]) == (200, 99)
    assert updated.json()["updated_at"] > updated.json()["created_at"]
    assert (await catalogue.get("/api/products/7")).content == updated.content


async def test_a_cached_product_is_read_once(catalogue: AsyncClient, usual: AsyncClient) -> None:
    path = f"/api/products/7{USUAL_HIT.suffix}"
    first = await usual.get(path)
    assert (first.status_code, first.content) == (200, (await catalogue.get("/api/products/7")).content)
    await usual.patch("/api/products/7", json={"stock": 99})
    assert (await usual.get(path)).content == first.content


async def test_it_has_the_endpoints_that_are_measured(usual: AsyncClient) -> None:
    operations = {
        (method.upper(), path.format(id=1))
        for path, methods in (await usual.get("/openapi.json")).json()["paths"].items()
        for method in methods
    }
    for scenario in SCENARIOS:
        if scenario.in_usual:
            method, path, *_ = next(scenario.lines(Random(1), 1, 1)).split(" ")
            assert (method, path) in operations
