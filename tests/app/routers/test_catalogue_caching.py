"""The catalogue's answers are cached, and no write is followed by an answer from before it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Limits

from app.enums import Role
from app.main import create_app
from app.settings import Settings
from plinth.testing.client import serve, served
from plinth.testing.wire import WirePostgres
from tests.app.accounts import headers_of
from tests.app.factories import create_category, create_product, product_data

CACHED = ("/api/products", "/api/products/1", "/api/products/search?q=aurora", "/api/categories", "/api/categories/1")


@pytest.fixture
async def shop(wire: WirePostgres, settings: Settings, empty_tables: None) -> AsyncIterator[AsyncClient]:
    """A client of an app with one product in one category, whose every word with PostgreSQL is counted."""
    database = settings.database.model_copy(update={"url": wire.through(settings.database.url)})
    async with (
        serve(create_app(settings.model_copy(update={"database": database}))) as service,
        service.client(headers_of(settings, Role.ADMIN)) as client,
    ):
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
    assert (head.status_code, head.content) == (200, b"")
    for name in ("ETag", "Cache-Control", "Last-Modified", "Content-Length", "Vary"):
        assert head.headers.get(name) == second.headers.get(name) == first.headers.get(name)
    assert ("Last-Modified" in first.headers) == path.endswith("/1")


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


async def test_what_is_missing_is_remembered_until_it_is_created(shop: AsyncClient, wire: WirePostgres) -> None:
    address = "/api/products/2"
    first = await shop.get(address)
    with wire.counting() as count:
        second = await shop.get(address)
    assert (count.round_trips, second.headers["X-Cache"], first.status_code, second.status_code) == (0, "hit", 404, 404)
    assert second.json()["request_id"] == second.headers["X-Request-ID"] != first.json()["request_id"]
    created = await create_product(shop, sku="OTHER")
    assert (created["id"], (await shop.get(address)).json()) == (2, created)


@pytest.fixture(params=[True, False], ids=["kept", "not kept"])
async def clients(request: pytest.FixtureRequest, settings: Settings, empty_tables: None) -> AsyncIterator[AsyncClient]:
    """A client of an app that keeps answers or does not, with one product in one category."""
    cache = settings.cache.model_copy(update={"responses": request.param})
    app, headers = create_app(settings.model_copy(update={"cache": cache})), headers_of(settings, Role.ADMIN)
    async with serve(app) as service, service.client(headers) as client:
        await create_category(client)
        await create_product(client)
        yield client


async def test_a_product_is_validated_by_its_version_its_bytes_and_its_encoding(
    clients: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    address = "/api/products/1"
    await clients.patch(address, json={"description": "a" * 2000})
    for table in ("products", "categories"):
        await onlooker.execute(f"UPDATE {table} SET updated_at = updated_at - INTERVAL '1 day'")
    plain, zipped = [
        (await clients.get(address, headers={"Accept-Encoding": coding})).headers for coding in ("identity", "gzip")
    ]
    assert plain["ETag"].startswith('"2.')
    assert zipped["ETag"] == plain["ETag"][:-1] + '-gzip"'
    for condition in (
        {"If-None-Match": f'"x", W/{plain["ETag"]}'},
        {"If-None-Match": zipped["ETag"]},
        {"If-None-Match": "*"},
        {"If-Modified-Since": plain["Last-Modified"]},
    ):
        assert (await clients.get(address, headers=condition)).status_code == 304
    await clients.patch("/api/categories/1", json={"name": "Notebooks"})  # the version stays, the bytes do not
    renamed = await clients.get(address, headers={"If-None-Match": plain["ETag"], "Accept-Encoding": "identity"})
    assert (renamed.status_code, renamed.headers["ETag"].startswith('"2.')) == (200, True)
    assert renamed.json()["category"] == {"id": 1, "name": "Notebooks"}
    row, category = renamed.headers, await clients.get("/api/categories/1")
    assert row["Last-Modified"] == category.headers["Last-Modified"] != plain["Last-Modified"]


async def test_what_a_write_answers_validates_the_next_one(clients: AsyncClient) -> None:
    for path, change in (("/api/products", {"stock": 1}), ("/api/categories", {"description": "New"})):
        data = product_data(sku="NEW") if path == "/api/products" else {"name": "New"}
        created = await clients.post(path, json=data)
        address, tag = created.headers["Location"], created.headers["ETag"]
        assert (await clients.get(address)).headers["ETag"] == tag
        changed = await clients.patch(address, json=change, headers={"If-Match": tag})
        assert (changed.status_code, changed.headers["ETag"][:3]) == (200, '"2.')
        assert (await clients.get(address)).headers["ETag"] == changed.headers["ETag"]
        assert (await clients.get(address)).headers["Last-Modified"] == changed.headers["Last-Modified"]
        replaced = await clients.put(address, json=data, headers={"If-Match": f'"0.x", W/{changed.headers["ETag"]}'})
        assert (replaced.status_code, "ETag" in replaced.headers) == (200, False)
        before = (await clients.get(address)).content
        for method, body in (("PUT", data), ("PATCH", change), ("DELETE", None)):
            for stale in (tag, '"other"'):
                answer = await clients.request(method, address, json=body, headers={"If-Match": stale})
                assert (answer.status_code, answer.headers["Content-Type"]) == (412, "application/problem+json")
                assert "was modified since you read it" in answer.json()["detail"]
            answer = await clients.request(method, address, json=body, headers={"If-Match": "3"})
            assert (answer.status_code, answer.json()["detail"][:8]) == (400, "If-Match")
            answer = await clients.request(method, f"{path}/99", json=body, headers={"If-Match": '"1"'})
            assert answer.status_code == 404
        assert (await clients.get(address)).content == before
        version = replaced.json()["version"]
        assert (await clients.delete(address, headers={"If-Match": f'"{version}"'})).status_code == 204
        assert (await clients.delete(address, headers={"If-Match": "*"})).status_code == 404


async def test_of_a_hundred_changes_to_the_same_version_one_succeeds(settings: Settings, empty_tables: None) -> None:
    many = settings.database.model_copy(update={"pool_size": 20, "pool_timeout_seconds": 30.0})
    async with serve(create_app(settings.model_copy(update={"database": many}))) as service, served(service) as port:
        limits = Limits(max_connections=100)
        headers, url = headers_of(settings, Role.ADMIN), f"http://127.0.0.1:{port}"
        async with AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as client:
            await create_category(client)
            await create_product(client)
            has = {"If-Match": (await client.get("/api/products/1")).headers["ETag"]}
            requests = (client.patch("/api/products/1", json={"stock": n}, headers=has) for n in range(100))
            answers = await asyncio.gather(*requests)
            after = (await client.get("/api/products/1")).json()
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 99
    assert after == next(answer.json() for answer in answers if answer.is_success)
    assert after["version"] == 2


async def test_changes_may_have_to_say_of_which_version(settings: Settings, empty_tables: None) -> None:
    strict = settings.model_copy(update={"http": settings.http.model_copy(update={"require_if_match": True})})
    headers = headers_of(settings, Role.ADMIN)
    async with serve(create_app(strict)) as service, service.client(headers) as client:
        await create_category(client)
        for method, body in (("PUT", {"name": "A"}), ("PATCH", {"name": "B"}), ("DELETE", None)):
            answer = await client.request(method, "/api/categories/1", json=body)
            assert (answer.status_code, answer.json()["title"]) == (428, "Precondition required")
            answer = await client.request(method, "/api/categories/1", json=body, headers={"If-Match": "*"})
            assert answer.is_success
