"""The catalogue's answers are cached, and no write is followed by an answer from before it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx import AsyncClient

from app.config import Settings
from tests.conftest import serve
from tests.factories import create_category, create_product, product_data
from tests.wire import WirePostgres

CACHED = ("/api/products", "/api/products/1", "/api/products/search?q=aurora", "/api/categories", "/api/categories/1")


@pytest.fixture
async def shop(wire: WirePostgres, settings: Settings, empty_tables: None) -> AsyncIterator[AsyncClient]:
    """A client of an app with one product in one category, whose every word with PostgreSQL is counted."""
    database = settings.database.model_copy(update={"url": wire.through(settings.database.url)})
    async with serve(settings.model_copy(update={"database": database})) as service, service.client() as client:
        await create_category(client)
        await create_product(client)
        yield client


@pytest.mark.parametrize("path", CACHED)
async def test_what_was_answered_is_answered_again_without_a_query(
    shop: AsyncClient, wire: WirePostgres, path: str
) -> None:
    first = await shop.get(path)
    with wire.counting() as count:
        second = await shop.get(path)
        unchanged = await shop.get(path, headers={"If-None-Match": first.headers["ETag"]})
        head = await shop.head(path)
    assert count.round_trips == 0
    assert (second.headers["X-Cache"], second.content) == ("hit", first.content)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", first.headers["ETag"])


WRITES: list[tuple[str, str, dict[str, Any] | None, tuple[str, ...]]] = [
    ("PATCH", "/api/products/1", {"name": "Aurora 15"}, CACHED[:3]),
    ("PUT", "/api/products/1", product_data(name="Aurora 16"), CACHED[:3]),
    ("DELETE", "/api/products/1", None, CACHED[:3]),
    ("POST", "/api/products", product_data(sku="OTHER", name="Aurora 17"), (CACHED[0], CACHED[2])),
    ("PATCH", "/api/categories/1", {"name": "Notebooks"}, CACHED),
    ("POST", "/api/categories", {"name": "Monitors"}, (CACHED[3],)),
]


@pytest.mark.parametrize(("method", "path", "body", "changed"), WRITES)
async def test_a_write_is_seen_by_the_next_read(
    shop: AsyncClient, method: str, path: str, body: dict[str, Any] | None, changed: tuple[str, ...]
) -> None:
    before = {path: (await shop.get(path)).content for path in CACHED}
    answer = await shop.request(method, path, json=body)
    assert answer.is_success, answer.text
    after = {path: (await shop.get(path)).content for path in CACHED}
    assert {path for path in CACHED if after[path] != before[path]} == {*changed}


async def test_a_write_that_fails_invalidates_nothing(shop: AsyncClient) -> None:
    await create_product(shop, sku="TAKEN")
    before = [await shop.get(path) for path in CACHED]
    assert (await shop.patch("/api/products/1", json={"sku": "TAKEN"})).status_code == 409
    assert (await shop.delete("/api/categories/1")).status_code == 409
    after = [await shop.get(path) for path in CACHED]
    assert [answer.headers["X-Cache"] for answer in after] == ["hit"] * len(CACHED)
    assert [answer.content for answer in after] == [answer.content for answer in before]


async def test_one_product_leaves_the_others_where_they_are(shop: AsyncClient) -> None:
    await create_product(shop, sku="OTHER")
    await shop.get("/api/products/1")
    await shop.patch("/api/products/2", json={"stock": 1})
    assert (await shop.get("/api/products/1")).headers["X-Cache"] == "hit"


async def test_production_does_not_tell_where_an_answer_is_from(settings: Settings) -> None:
    production = settings.model_copy(update={"app": settings.app.model_copy(update={"env": "production"})})
    async with serve(production) as service, service.client() as client:
        answers = [await client.get("/api/categories") for _ in range(2)]
    assert not any("X-Cache" in answer.headers for answer in answers)
    assert "Age" in answers[1].headers


@pytest.mark.parametrize(("workers", "cached"), [(1, True), (2, False)])
async def test_workers_that_hear_nothing_of_one_another_keep_no_answers(
    settings: Settings, workers: int, cached: bool
) -> None:
    alone = {"redis": settings.redis.model_copy(update={"url": None}), "web_concurrency": workers}
    async with serve(settings.model_copy(update=alone)) as service, service.client() as client:
        answers = [await client.get("/api/categories") for _ in range(2)]
    assert ("Age" in answers[1].headers) == cached
