"""Products from a file: formats, errors by row, what is stored, and what happens at the same time."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Response

from app.services import imports
from app.settings import Settings
from plinth.testing.client import Service
from plinth.testing.wire import WirePostgres
from tests.app.factories import create_category, create_product, product_data
from tests.app.worker import finished, working

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
    rows = rows_of(3) + [product_data(sku='"Quoted", and', name="Two\nlines", description="", price="0.05", stock=0)]
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
