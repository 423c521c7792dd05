"""Of products and categories, each field and parameter; text is stored and never executed."""

import json
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient

from tests.app.factories import create_category, create_product, product_data
from tests.app.test_bad_input import assert_clear

HOSTILE_TEXTS = [
    "Robert'); DROP TABLE products; --",
    "<script>alert('x')</script>",
    '"; DELETE FROM categories; SELECT "',
    "%s %(name)s {0} ${x} $1 :name \\x00 \\",
    "\u202e \u200b \U0001f4bb e\u0301 \ufeff",
]


@pytest.fixture
async def catalogue(client: AsyncClient) -> None:
    await create_category(client)
    await create_product(client)


async def stored(onlooker: asyncpg.Connection) -> list[Any]:
    return [await onlooker.fetch(f"SELECT * FROM {table} ORDER BY id") for table in ("categories", "products")]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"sku": 5}, "#/sku"),
        ({"sku": ""}, "#/sku"),
        ({"sku": " \t"}, "#/sku"),
        ({"sku": "x" * 65}, "#/sku"),
        ({"sku": "a\x00b"}, "#/sku"),
        ({"name": None}, "#/name"),
        ({"name": "x" * 201}, "#/name"),
        ({"name": "a\x00b"}, "#/name"),
        ({"name": ["x"]}, "#/name"),
        ({"description": "\x00"}, "#/description"),
        ({"description": "x" * 10_001}, "#/description"),
        ({"price": 19.9}, "#/price"),
        ({"price": 19}, "#/price"),
        ({"price": True}, "#/price"),
        ({"price": "19.999"}, "#/price"),
        ({"price": "-1.00"}, "#/price"),
        ({"price": "1e3"}, "#/price"),
        ({"price": "NaN"}, "#/price"),
        ({"price": "Infinity"}, "#/price"),
        ({"price": "١٩.٩٠"}, "#/price"),
        ({"price": " 19.90"}, "#/price"),
        ({"price": "19.90\n"}, "#/price"),
        ({"price": "99999999999.00"}, "#/price"),
        ({"price": ""}, "#/price"),
        ({"stock": -1}, "#/stock"),
        ({"stock": "5"}, "#/stock"),
        ({"stock": True}, "#/stock"),
        ({"stock": 1.5}, "#/stock"),
        ({"stock": 2**31}, "#/stock"),
        ({"stock": 10**30}, "#/stock"),
        ({"category_id": 0}, "#/category_id"),
        ({"category_id": 2**53}, "#/category_id"),
        ({"category_id": 10**30}, "#/category_id"),
        ({"id": 7}, "#/id"),
        ({"colour": "red"}, "#/colour"),
        ({"a/b~c": 1}, "#/a~1b~0c"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.usefixtures("catalogue")
async def test_a_wrong_field_is_pointed_at(
    client: AsyncClient, onlooker: asyncpg.Connection, method: str, change: dict[str, Any], pointer: str
) -> None:
    before = await stored(onlooker)
    body = change if method == "PATCH" else product_data(sku="NEW") | change
    answer = await client.request(method, "/api/products" + ("" if method == "POST" else "/1"), json=body)
    assert_clear(answer, 422, pointer)
    assert await stored(onlooker) == before


@pytest.mark.usefixtures("catalogue")
async def test_every_wrong_field_is_named_at_once(client: AsyncClient) -> None:
    answer = await client.post("/api/products", json={"sku": 1, "price": "1.234", "stock": -1, "colour": "red"})
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert pointers == {"#/sku", "#/name", "#/price", "#/stock", "#/category_id", "#/colour"}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b"5", 422),
        (b'"text"', 422),
        (b"{", 400),
        (b'{"name": }', 400),
        (b"\xff\xfe\x00", 400),
        (b'{"name": "\xff"}', 400),
        (b'{"name": "\\ud800", "sku": "X", "price": "1", "category_id": 1}', 422),
        (b'{"\\ud800": 1}', 422),
        (b'{"stock": NaN}', 422),
        (b'{"stock": 1e999}', 422),
        (b'{"stock": ' + b"9" * 5000 + b"}", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 50_000, 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
    ],
)
@pytest.mark.usefixtures("catalogue")
async def test_a_body_that_is_no_product_is_refused(
    client: AsyncClient, onlooker: asyncpg.Connection, content: bytes, status: int
) -> None:
    before = await stored(onlooker)
    answer = await client.post("/api/products", content=content, headers={"Content-Type": "application/json"})
    assert_clear(answer, status)
    assert await stored(onlooker) == before


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "nonsense"]
)
@pytest.mark.usefixtures("catalogue")
async def test_json_that_does_not_say_so_is_415(
    client: AsyncClient, onlooker: asyncpg.Connection, content_type: str
) -> None:
    before = await stored(onlooker)
    content = json.dumps(product_data(sku="NEW")).encode()
    headers = {"Content-Type": content_type} if content_type else {}
    assert_clear(await client.post("/api/products", content=content, headers=headers), 415)
    assert await stored(onlooker) == before


@pytest.mark.usefixtures("catalogue")
async def test_a_body_over_a_mebibyte_is_413(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    before = await stored(onlooker)
    answer = await client.post("/api/products", json=product_data(sku="NEW", description="x" * 1_048_576))
    assert_clear(answer, 413)
    assert await stored(onlooker) == before


async def test_an_empty_patch_is_refused(client: AsyncClient) -> None:
    for address in ("/api/products/1", "/api/categories/1"):
        assert_clear(await client.patch(address, json={}), 422)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("id", ["0", str(2**53), str(2**63), str(10**30), "9" * 5000])
async def test_an_id_that_cannot_be_is_refused(client: AsyncClient, method: str, id: str) -> None:
    body = {"PUT": {"name": "x"}, "PATCH": {"name": "x"}}.get(method)
    assert_clear(await client.request(method, f"/api/categories/{id}", json=body), 422, "#/id")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("id", ["-1", "abc", "1.5", "%00", "%FF", "1%20", "٣", "1%2F2"])
async def test_what_is_no_id_is_404(client: AsyncClient, method: str, id: str) -> None:
    body = {"PUT": {"name": "x"}, "PATCH": {"name": "x"}}.get(method)
    assert_clear(await client.request(method, f"/api/categories/{id}", json=body), 404)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "#/limit"),
        ("limit=101", "#/limit"),
        ("limit=-1", "#/limit"),
        ("limit=x", "#/limit"),
        ("limit=", "#/limit"),
        (f"limit={10**30}", "#/limit"),
        ("limit=1&limit=2x", "#/limit"),
        ("cursor=broken", "#/cursor"),
        ("cursor=", "#/cursor"),
        ("cursor=%00", "#/cursor"),
        ("cursor=%C3%A9", "#/cursor"),
        ("sort=stock", "#/sort"),
        ("sort=--id", "#/sort"),
        ("sort=id%27%3B%20DROP%20TABLE%20products", "#/sort"),
        ("category=x", "#/category"),
        (f"category={10**30}", "#/category"),
        ("min_price=1.234", "#/min_price"),
        ("min_price=x", "#/min_price"),
        ("max_price=-1", "#/max_price"),
        (f"max_price={10**30}", "#/max_price"),
        ("in_stock=perhaps", "#/in_stock"),
        ("total=x", "#/total"),
        ("colour=red", "#/colour"),
        ("%00=1", "#/%00"),
    ],
)
async def test_a_wrong_query_parameter_is_pointed_at(client: AsyncClient, query: str, pointer: str) -> None:
    assert_clear(await client.get(f"/api/products?{query}"), 422, pointer)


@pytest.mark.parametrize("q", ["", " ", "%20%20", "'", "%26%20%7C%20!", ":*", "%00", "a%00b", "()", "---", "x" * 201])
async def test_a_search_for_no_word_is_refused(client: AsyncClient, q: str) -> None:
    assert_clear(await client.get(f"/api/products/search?q={q}"), 422, "#/q")


@pytest.mark.parametrize("query", ["q=%FF%FE", "q=laptop&%C3=1", "q=%ED%A0%80"])
async def test_a_query_that_is_not_utf8_is_refused(client: AsyncClient, query: str) -> None:
    assert_clear(await client.get(f"/api/products/search?{query}"), 400)


async def test_a_search_without_a_query_is_refused(client: AsyncClient) -> None:
    assert_clear(await client.get("/api/products/search"), 422, "#/q")


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("q", [*HOSTILE_TEXTS, "a'b", "a\\", "\\'a", "a:*b", "a & !b", "<->a", "a" * 200, "ﬀ ǆ İ"])
async def test_a_hostile_search_is_only_words(client: AsyncClient, onlooker: asyncpg.Connection, q: str) -> None:
    before = await stored(onlooker)
    answer = await client.get("/api/products/search", params={"q": q})
    assert answer.status_code in {200, 422}
    assert await stored(onlooker) == before


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
async def test_hostile_text_is_kept_as_it_is(client: AsyncClient, onlooker: asyncpg.Connection, text: str) -> None:
    category = await create_category(client, text, description=text)
    assert (category["name"], category["description"]) == (text, text)
    product = await create_product(client, sku=text, name=text, description=text)
    changed = await client.patch("/api/products/1", json={"name": text, "description": text, "sku": text})
    for body in (product, changed.json(), (await client.get("/api/products/1")).json()):
        assert (body["sku"], body["name"], body["description"]) == (text, text, text)
        assert body["category"]["name"] == text
    row = await onlooker.fetchrow("SELECT sku, name, description FROM products")
    assert tuple(row) == (text, text, text)
    assert (await client.get("/api/products?sort=name&limit=1")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api", "/api/nothing", "/api/products/", "/docs2", "/%00", "/api/products/1/x"])
async def test_an_unknown_route_is_404(client: AsyncClient, path: str) -> None:
    assert_clear(await client.get(path), 404)


async def test_a_method_that_a_route_does_not_have_is_405(client: AsyncClient) -> None:
    answer = await client.delete("/api/products")
    assert_clear(answer, 405)
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    answer = await client.post("/api/products/1")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, PATCH, PUT"
    answer = await client.delete("/api/products/search")
    assert answer.headers["Allow"] == "GET, HEAD"
