"""Products from a file: formats, errors by row, what is stored, and what happens at the same time."""

import asyncio
import csv
import io
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Response

from app.services import imports
from app.settings import Settings
from plinth.testing.wire import WirePostgres
from tests.app.factories import create_category, create_product, product_data
from tests.app.test_bad_input import assert_clear

BULK = "/api/products/bulk"
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
FORMATS = [JSON, NDJSON, CSV]
STORED = "SELECT sku, name, description, price, stock, category_id, version FROM products ORDER BY sku"


@pytest.fixture
async def category(client: AsyncClient) -> None:
    await create_category(client)


def rows_of(count: int, first: int = 0, **changes: Any) -> list[dict[str, Any]]:
    return [product_data(sku=f"SKU-{number:06}", **changes) for number in range(first, first + count)]


def written(rows: Sequence[Mapping[str, Any]], kind: str) -> bytes:
    if kind == JSON:
        return json.dumps(rows).encode()
    if kind == NDJSON:
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    text = io.StringIO()
    table = csv.DictWriter(text, [*dict.fromkeys(name for row in rows for name in row)])
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


async def send(client: AsyncClient, rows: Sequence[Mapping[str, Any]], kind: str = NDJSON, **query: str) -> Response:
    return await client.post(BULK, params=query, content=written(rows, kind), headers={"Content-Type": kind})


def places(errors: Iterable[Mapping[str, str]]) -> list[str]:
    return [error["pointer"] for error in errors]


@pytest.mark.parametrize("kind", FORMATS)
async def test_rows_become_products(
    client: AsyncClient, category: None, onlooker: asyncpg.Connection, kind: str
) -> None:
    rows = [*rows_of(3), product_data(sku='"Quoted", and', name="Two\nlines", description="", price="0.05", stock=0)]
    answer = await send(client, rows, kind)
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert (body["state"], body["rows"], body["done"], body["failed"]) == ("done", 4, 4, 0)
    assert (await client.get(answer.headers["Location"])).json() == body
    stored = [(*row,) for row in await onlooker.fetch(STORED)]
    assert [row[:2] for row in stored[:2]] == [('"Quoted", and', "Two\nlines"), ("SKU-000000", "Aurora 14 Laptop")]
    assert stored[0][2:] == ("", 5, 0, 1, 1)
    assert stored[1][2:] == ("Light and quiet.", 129900, 7, 1, 1)
    assert await onlooker.fetch("SELECT * FROM product_import_rows") == []


INVALID: list[dict[str, Any]] = [
    {"sku": ""},
    {"sku": "a\x00b"},
    {"name": "x" * 201},
    {"price": "19.999"},
    {"price": 19},
    {"price": "-1.00"},
    {"stock": -1},
    {"stock": 1.5},
    {"stock": 10**30},
    {"category_id": 0},
    {"category_id": 999},
    {"colour": "red", "stock": -1},
    {"a/b~c": 1},
]


@pytest.mark.parametrize("kind", FORMATS)
async def test_a_row_is_what_a_single_product_would_be(
    client: AsyncClient, category: None, onlooker: asyncpg.Connection, kind: str
) -> None:
    if kind == CSV:  # a column is one of all rows, and an empty cell is a field that is left out
        changes = [each for each in INVALID if each.keys() <= product_data().keys() and each.get("sku") != ""]
        changes = [each for each in changes if each.get("price") != 19]  # where the price is text in any case
    else:
        changes = INVALID
    rows = rows_of(5) + [product_data(sku=f"BAD-{number}") | change for number, change in enumerate(changes)]
    rows += [{"sku": "FEW", "name": "Few", "price": "1.00", "category_id": 1}, *rows_of(2, first=10, stock=2**31 - 1)]
    expected = list[tuple[str, str]]()
    begin = {JSON: 0, NDJSON: 1, CSV: 2}[kind]
    for number, row in enumerate(rows, begin):
        single = await client.post("/api/products", json=row)
        for fault in single.json().get("errors", []):
            expected.append((f"#/{number}{fault['pointer'][1:]}", fault["detail"]))
    stored = await onlooker.fetch(STORED)
    await onlooker.execute("DELETE FROM products")
    body = (await send(client, rows, kind, errors="skip")).json()
    assert sorted((each["pointer"], each["detail"]) for each in body["errors"]) == sorted(expected)
    assert await onlooker.fetch(STORED) == stored
    assert (body["state"], body["rows"], body["done"], body["failed"]) == ("done", len(rows), 8, len(changes))


async def test_rows_with_errors_are_skipped_or_nothing_is_stored(
    client: AsyncClient, category: None, onlooker: asyncpg.Connection
) -> None:
    await create_product(client, sku="TAKEN")
    before = await onlooker.fetch(STORED)
    rows = [
        product_data(sku="TAKEN"),
        product_data(sku="NEW"),
        product_data(sku="NEW", name="Another"),
        product_data(sku="LOST", category_id=9),
        product_data(sku="LOST"),
    ]
    refused = await send(client, rows)
    assert refused.status_code == 422
    assert refused.json()["detail"] == "Nothing was stored: 4 rows have an error."
    assert {error["pointer"]: error["detail"] for error in refused.json()["errors"]} == {
        "#/1/sku": "This sku is already taken.",
        "#/3/sku": "This sku is in a row before.",
        "#/4/category_id": "This category_id refers to something that does not exist.",
        "#/5/sku": "This sku is in a row before.",
    }
    assert await onlooker.fetch(STORED) == before
    for table in ("product_imports WHERE rows > 0", "product_import_rows"):
        assert await onlooker.fetch(f"SELECT * FROM {table}") == []
    body = (await send(client, rows, errors="skip")).json()
    assert (body["done"], body["failed"], places(body["errors"])) == (1, 4, places(refused.json()["errors"]))
    assert [row["sku"] for row in await onlooker.fetch(STORED)] == ["NEW", "TAKEN"]
    assert await onlooker.fetch("SELECT * FROM product_import_rows") == []


async def test_at_most_a_hundred_errors_are_listed_and_all_are_counted(client: AsyncClient, category: None) -> None:
    rows = [*rows_of(80, stock=-1), *rows_of(80, first=100, category_id=9)]
    body = (await send(client, rows, errors="skip")).json()
    assert (body["failed"], len(body["errors"])) == (160, 100)
    refused = (await send(client, rows[80:])).json()
    assert (refused["detail"], len(refused["errors"])) == ("Nothing was stored: 80 rows have an error.", 80)


async def test_an_upsert_changes_products_as_a_put_does(
    client: AsyncClient, category: None, onlooker: asyncpg.Connection
) -> None:
    same, other = [await create_product(client, sku=sku) for sku in ("SAME", "OTHER")]
    paths = [f"/api/products/{id}" for id in (same["id"], other["id"], other["id"] + 3)]
    before = [await client.get(path) for path in paths for _ in range(2)]  # the second of each is cached
    rows = [product_data(sku="OTHER", price="7.05"), product_data(sku="SAME"), product_data(sku="NEW")]
    body = (await send(client, rows, mode="upsert")).json()
    assert (body["state"], body["done"]) == ("done", 3)
    assert (await client.get(paths[0])).json() == before[0].json()  # nothing changed, so neither did its version
    changed = (await client.get(paths[1])).json()
    assert changed["updated_at"] > other["updated_at"]
    assert changed == other | {"price": "7.05", "version": 2, "updated_at": changed["updated_at"]}
    ids = {row["sku"]: row["id"] for row in await onlooker.fetch("SELECT id, sku FROM products")}
    assert (await client.get(f"/api/products/{ids['NEW']}")).status_code == 200


async def test_a_new_product_is_not_hidden_by_its_cached_404(
    client: AsyncClient, category: None, onlooker: asyncpg.Connection
) -> None:
    assert [(await client.get("/api/products/1")).status_code for _ in range(2)] == [404, 404]
    await send(client, rows_of(1))
    assert (await client.get("/api/products/1")).status_code == 200


@pytest.mark.parametrize("batch", [5000, 70])
@pytest.mark.parametrize("mode", ["insert", "upsert"])
async def test_the_same_skus_in_opposite_order_at_the_same_time(
    *,
    client: AsyncClient,
    category: None,
    onlooker: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    batch: int,
) -> None:
    monkeypatch.setattr(imports, "BATCH", batch)
    for first in (200, 100, 0):  # ids are in another order than skus
        await send(client, rows_of(100, first=first, stock=1))
    rows = rows_of(600, stock=2)
    orders = [rows, rows[::-1], rows[:500], rows[:99:-1]]
    answers = await asyncio.gather(*(send(client, order, errors="skip", mode=mode) for order in orders))
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text[:500] for answer in answers]
    done = sum(answer.json()["done"] for answer in answers)
    assert done == (300 if mode == "insert" else 2200)
    versions = [row["version"] for row in await onlooker.fetch(STORED)]
    assert versions == [1] * 600 if mode == "insert" else [2] * 300 + [1] * 300


@pytest.mark.parametrize("batch", [5000, 1])
async def test_a_product_that_is_locked_is_waited_for_by_id(
    *,
    client: AsyncClient,
    category: None,
    onlooker: asyncpg.Connection,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:
    """An order locks products by id, here 1 ("B") and then 2 ("A"). In the order of skus this would deadlock."""
    monkeypatch.setattr(imports, "BATCH", batch)
    for sku in ("B", "A"):
        await create_product(client, sku=sku)
    other = await asyncpg.connect(settings.database.url.get_secret_value())
    try:
        async with other.transaction():
            await other.execute("SELECT FROM products WHERE id = 1 FOR UPDATE")
            rows = [product_data(sku=sku, stock=1) for sku in ("A", "B")]
            task = asyncio.create_task(send(client, rows, mode="upsert"))
            async with asyncio.timeout(30):
                while True:
                    if await onlooker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                        break
                    await asyncio.sleep(0.01)
            await other.execute("SELECT FROM products WHERE id = 2 FOR UPDATE")
        assert (await task).status_code == 200
    finally:
        await other.close()


async def test_a_client_that_sends_slowly_holds_no_connection(
    client: AsyncClient, category: None, onlooker: asyncpg.Connection
) -> None:
    content = written(rows_of(100), NDJSON)
    is_halfway, may_go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield content[:5000]
        is_halfway.set()
        await may_go_on.wait()
        yield content[5000:]

    headers = {"Content-Type": NDJSON}
    task = asyncio.create_task(client.post(BULK, content=slowly(), headers=headers))
    await is_halfway.wait()
    busy = "SELECT query FROM pg_stat_activity WHERE state <> 'idle' AND datname = current_database()"
    held = await onlooker.fetch(f"{busy} AND pid <> pg_backend_pid()")
    may_go_on.set()
    assert held == []
    assert (await task).json()["done"] == 100


async def test_memory_does_not_grow_with_the_body(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    count, description = 3000, "x" * 10_000

    async def parts() -> AsyncIterator[bytes]:
        for number in range(count):
            yield written([product_data(sku=f"SKU-{number}", description=description)], NDJSON)

    tracemalloc.start()
    try:
        answer = await client.post(BULK, params={"errors": "skip"}, content=parts(), headers={"Content-Type": NDJSON})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.json()["rows"], answer.json()["failed"]) == (count, count)  # there is no category
    assert peak < 12_000_000 < count * len(description) / 2


@pytest.mark.parametrize("mode", ["insert", "upsert"])
async def test_the_statements_do_not_grow_with_the_rows(wired: AsyncClient, wire: WirePostgres, mode: str) -> None:
    statements = []
    for count in (1, 10, 1000):
        with wire.counting() as counted:
            answer = await send(wired, rows_of(count, first=10 * count, name=f"Name {count}"), mode=mode)
        assert answer.json()["done"] == count
        statements.append(len([each for each in counted.statements if "pg_catalog" not in each]))
    assert statements[1] == statements[2], statements


@pytest.mark.parametrize(
    ("kind", "content", "query", "status"),
    [
        ("text/plain", b"[]", "", 415),
        (JSON, b"{}", "", 400),
        (JSON, b"", "", 400),
        (JSON, b"[" * 100, "", 400),
        (JSON, b'[{"sku": "A"}', "", 400),
        (NDJSON, b'{"sku": "\xff"}', "", 400),
        (NDJSON, b"{}\n" * 6, "", 400),
        (NDJSON, b"x" * 70_000, "", 400),
        (CSV, b'sku\n"A', "", 400),
        (CSV, b"sku\nA\n", "", 422),
        (NDJSON, b"{", "", 422),
        (JSON, b"[]", "?mode=replace", 422),
        (JSON, b"[]", "?errors=ignore", 422),
        (JSON, b"[]", "?dry_run=true", 422),
    ],
)
async def test_what_cannot_be_taken_is_refused_and_nothing_is_stored(
    *,
    client: AsyncClient,
    category: None,
    onlooker: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    content: bytes,
    query: str,
    status: int,
) -> None:
    monkeypatch.setattr("app.routers.imports.MOST_ROWS", 5)
    answer = await client.post(BULK + query, content=content, headers={"Content-Type": kind})
    assert_clear(answer, status)
    for table in ("products", "product_imports WHERE rows > 0", "product_import_rows"):
        assert await onlooker.fetch(f"SELECT * FROM {table}") == []


async def test_the_body_may_be_larger_than_others_up_to_a_limit(
    client: AsyncClient, category: None, settings: Settings
) -> None:
    rows = rows_of(40, description="x" * 10_000)
    content = written(rows, NDJSON)
    assert len(content) > settings.http.max_body_bytes
    assert (await send(client, rows)).json()["done"] == 40
    headers = {"Content-Type": NDJSON, "Content-Length": str(64 * 1024 * 1024 + 1)}
    assert_clear(await client.post(BULK, content=content, headers=headers), 413)


async def test_nothing_is_an_import_too(client: AsyncClient) -> None:
    body = (await send(client, [], JSON)).json()
    assert (body["state"], body["rows"], body["done"]) == ("done", 0, 0)
    assert (await client.get("/api/imports/999")).status_code == 404
