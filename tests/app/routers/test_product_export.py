"""The export of products: what it sends, and what becomes of it when something goes wrong."""

import asyncio
import csv
import io
import json
import logging
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import pytest
from httpx import AsyncClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app import tags
from app.main import create_app
from app.settings import Settings
from plinth.testing.client import Service, serve, served
from tests.app.factories import create_category, create_product

EXPORT = "/api/products/export"
HEADER = "id,sku,name,description,price,stock,category_id,category_name,version,created_at,updated_at"
NASTY = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    'a "quoted", cell',
    "línea\n2",
    "日本 \\n \\ \x01\x02",
    "'=1",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)


async def listed(client: AsyncClient, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await client.get(f"/api/products?limit=100{query}{cursor}")).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"


@pytest.fixture
async def products(client: AsyncClient) -> None:
    for name in ("Laptops", 'Moni"tors'):
        await create_category(client, name)
    for number, text in enumerate(NASTY):
        await create_product(
            client,
            1 + number % 2,
            sku=f"S-{number}",
            name=f"x{text}",
            description=text,
            price=f"{number}.50",
            stock=number,
        )


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(
    "query",
    ["", "&sort=-name", "&category=2", "&in_stock=false", "&min_price=3.50&max_price=7&sort=price", "&category=99"],
)
async def test_an_export_has_what_the_list_has(client: AsyncClient, query: str) -> None:
    items = await listed(client, query)
    as_json = await client.get(f"{EXPORT}?format=json{query}")
    as_lines = await client.get(f"{EXPORT}?format=ndjson{query}")
    as_table = await client.get(f"{EXPORT}?format=csv{query}")
    assert as_json.json() == items == [json.loads(line) for line in as_lines.text.splitlines()]
    rows = [*csv.DictReader(io.StringIO(as_table.text, newline=""))]
    assert [row["id"] for row in rows] == [str(item["id"]) for item in items]
    assert as_table.text.splitlines()[0].startswith(
        "id,sku,name,description,price,stock,category_id,category_name,version"
    )
    assert [each.headers["Content-Type"].partition(";")[0] for each in (as_json, as_lines, as_table)] == [
        "application/json",
        "application/x-ndjson",
        "text/csv",
    ]
    assert as_table.headers["Content-Disposition"] == 'attachment; filename="products.csv"'


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.tuples(TEXTS, TEXTS), numbers=st.tuples(st.integers(0, 10**12), st.integers(0, 2_000_000)))
async def test_every_value_is_written_as_in_the_list(
    client: AsyncClient,
    service: Service,
    onlooker: asyncpg.Connection,
    texts: tuple[str, str],
    numbers: tuple[int, int],
) -> None:
    """Instants with and without a fraction, control characters, and prices of any size."""
    (name, description), (cents, micros) = texts, numbers
    await onlooker.execute("DELETE FROM products")
    await onlooker.execute("INSERT INTO categories (name) VALUES ($1) ON CONFLICT DO NOTHING", "Any")
    await onlooker.execute(
        "INSERT INTO products (sku, name, description, price, stock, category_id, created_at, updated_at)"
        " SELECT 'S', $1, $2, $3, 1, id, 'epoch', 'epoch'::timestamptz + $4 * interval '1 microsecond'"
        " FROM categories WHERE name = 'Any'",
        *(name, description, cents, micros),
    )
    await service.state["cache"].invalidate(tags.PRODUCTS.name)
    [item] = (await client.get("/api/products")).json()["items"]
    assert json.loads((await client.get(EXPORT)).text) == item
    [row] = csv.DictReader(io.StringIO((await client.get(f"{EXPORT}?format=csv")).text, newline=""))
    for field, value in (("name", name), ("description", description)):
        dangerous = value[:1] in {"=", "+", "-", "@", "\t", "\r", "\n"} and value != ""
        assert row[field] == ("'" + value if dangerous else value)
    assert Decimal(row["price"]) == Decimal(cents).scaleb(-2)


async def test_an_empty_catalogue_is_an_empty_file(client: AsyncClient) -> None:
    assert (await client.get(f"{EXPORT}?format=json")).json() == []
    assert (await client.get(EXPORT)).content == b""
    assert (await client.get(f"{EXPORT}?format=csv")).text.count("\n") == 1


@pytest.mark.parametrize("query", ["format=xml", "sort=stock", "min_price=-1", "limit=5", "cursor=x", "category=0"])
async def test_a_bad_query_is_refused(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"{EXPORT}?{query}")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"


RUNNING = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE state = 'active' AND query LIKE 'COPY (%' AND backend_type = 'client backend'"
)


@pytest.fixture
async def many(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    """More text than the buffers between a client and PostgreSQL hold: about 80 MB."""
    await create_category(client)
    await onlooker.execute(
        "INSERT INTO products (sku, name, description, price, stock, category_id)"
        " SELECT 'S-' || i, 'Product', repeat(repeat('x', 1500) || ' ', 13), i, 1, 1 FROM generate_series(1, 4000) AS i"
    )


@pytest.fixture
async def small(settings: Settings, client: AsyncClient) -> AsyncIterator[tuple[Service, AsyncClient]]:
    """The app on a port, with one connection for reads and room for one export."""
    sizes = {"pool_size": 1, "read_pool_size": 1, "exports": 1}
    changed = {"database": settings.database.model_copy(update=sizes)}
    async with serve(create_app(settings.model_copy(update=changed))) as service, served(service) as port:
        url = f"http://127.0.0.1:{port}"
        async with AsyncClient(base_url=url, headers=client.headers, timeout=30) as other:
            yield service, other


async def until_ended(service: Service, onlooker: asyncpg.Connection) -> None:
    async with asyncio.timeout(10):
        while await onlooker.fetch(RUNNING) or service.state["database"].exports.running:
            pass


@pytest.mark.usefixtures("many")
async def test_a_slow_reader_holds_no_connection_of_others_and_frees_its_own_when_it_leaves(
    small: tuple[Service, AsyncClient], onlooker: asyncpg.Connection
) -> None:
    service, client = small
    exports = service.state["database"].exports
    async with client.stream("GET", EXPORT, headers={"Accept-Encoding": "identity"}) as answer:
        assert answer.status_code == 200
        chunks = answer.aiter_raw(1000)
        await anext(chunks)
        assert (exports.running, len(await onlooker.fetch(RUNNING))) == (1, 1)
        listed = await asyncio.gather(*(client.get("/api/products?limit=1") for _ in range(5)))
        assert {each.status_code for each in listed} == {200}
        second = await client.get(EXPORT)
        assert (second.status_code, "Retry-After" in second.headers) == (503, True)
    await until_ended(service, onlooker)
    assert (await client.get(f"{EXPORT}?max_price=1")).status_code == 200


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("format", ["json", "ndjson", "csv"])
async def test_an_error_midway_breaks_the_response(
    small: tuple[Service, AsyncClient], onlooker: asyncpg.Connection, format: str, encoding: str
) -> None:
    service, client = small
    received = b""
    with pytest.raises(httpx.RemoteProtocolError):
        async with client.stream("GET", f"{EXPORT}?format={format}", headers={"Accept-Encoding": encoding}) as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_raw(1000):
                if not received:
                    [pid] = [row["pid"] for row in await onlooker.fetch(RUNNING)]
                    await onlooker.execute("SELECT pg_terminate_backend($1)", pid)
                received += chunk
    assert received
    await until_ended(service, onlooker)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("method", "condition"), [("HEAD", {}), ("GET", {"If-None-Match": "*"}), ("HEAD", {"If-None-Match": "*"})]
)
async def test_a_response_without_a_body_ends_the_export_and_logs_nothing(
    small: tuple[Service, AsyncClient],
    onlooker: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
    method: str,
    condition: dict[str, str],
) -> None:
    service, client = small
    with caplog.at_level(logging.WARNING):
        answer = await client.request(method, EXPORT, headers=condition)
    assert (answer.status_code, answer.content) == (304 if condition else 200, b"")
    await until_ended(service, onlooker)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
