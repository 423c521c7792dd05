import json
import re
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient

from app.repositories.products import MOST_RANKED, SEARCH
from plinth.testing.client import Service
from plinth.testing.wire import WirePostgres
from tests.app.factories import create_category, create_product, product_data


@pytest.fixture
async def category(client: AsyncClient) -> dict[str, Any]:
    return await create_category(client)


@pytest.fixture
async def product(client: AsyncClient, category: dict[str, Any]) -> dict[str, Any]:
    return await create_product(client, category["id"])


@pytest.fixture
async def catalogue(client: AsyncClient) -> None:
    for name in ("Laptops", "Monitors"):
        await create_category(client, name)
    await create_product(client, 1, sku="L-1", name="Aurora laptop", price="900.00", stock=0)
    await create_product(client, 1, sku="L-2", name="Borealis laptop", price="1500.50", stock=3)
    await create_product(client, 2, sku="M-1", name="Cinema", price="300", stock=5, description="For laptops.")
    await create_product(client, 2, sku="M-2", name="Desk monitor", price="900.00", stock=1)


async def skus(client: AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/api/products{query}")
    assert answer.status_code == 200, answer.text
    return [item["sku"] for item in answer.json()["items"]]


async def test_a_created_product_is_answered_whole(client: AsyncClient, category: dict[str, Any]) -> None:
    before = datetime.now(UTC)
    answer = await client.post("/api/products", json=product_data(category["id"]))
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/api/products/1"
    body = answer.json()
    created_at = datetime.fromisoformat(body.pop("created_at"))
    assert abs((created_at - before).total_seconds()) < 60
    assert datetime.fromisoformat(body.pop("updated_at")) == created_at
    assert body == {
        "id": 1,
        "sku": "LAP-000001",
        "name": "Aurora 14 Laptop",
        "description": "Light and quiet.",
        "price": "1299.00",
        "stock": 7,
        "category": {"id": category["id"], "name": "Laptops"},
        "version": 1,
    }


async def test_a_product_is_read_as_it_was_created(client: AsyncClient, product: dict[str, Any]) -> None:
    answer = await client.get(f"/api/products/{product['id']}")
    assert answer.status_code == 200
    assert answer.json() == product


async def test_description_and_stock_have_defaults(client: AsyncClient, category: dict[str, Any]) -> None:
    data = product_data(category["id"])
    del data["description"], data["stock"]
    body = (await client.post("/api/products", json=data)).json()
    assert (body["description"], body["stock"]) == ("", 0)


@pytest.mark.parametrize(("sent", "kept"), [("5", "5.00"), ("5.5", "5.50"), ("0.00", "0.00"), ("9999999999.99",) * 2])
async def test_a_price_always_has_two_places(
    client: AsyncClient, category: dict[str, Any], onlooker: asyncpg.Connection, sent: str, kept: str
) -> None:
    product = await create_product(client, category["id"], price=sent)
    assert product["price"] == kept
    assert await onlooker.fetchval("SELECT price FROM products") == int(kept.replace(".", ""))


async def test_put_replaces_every_field(client: AsyncClient, product: dict[str, Any]) -> None:
    monitors = await create_category(client, "Monitors")
    data = product_data(monitors["id"], sku="MON-1", name="Cinema", price="10.00")
    del data["description"], data["stock"]
    answer = await client.put(f"/api/products/{product['id']}", json=data)
    assert answer.status_code == 200
    body = answer.json()
    assert body["category"] == {"id": monitors["id"], "name": "Monitors"}
    assert (body["sku"], body["name"], body["price"]) == ("MON-1", "Cinema", "10.00")
    assert (body["description"], body["stock"]) == ("", 0)
    assert body == (await client.get(f"/api/products/{product['id']}")).json()


@pytest.mark.parametrize(
    "change",
    [{"sku": "NEW"}, {"name": "New"}, {"description": ""}, {"price": "0.01"}, {"stock": 0}, {"stock": 1, "name": "N"}],
)
async def test_patch_changes_only_what_is_sent(
    client: AsyncClient, product: dict[str, Any], change: dict[str, Any]
) -> None:
    answer = await client.patch(f"/api/products/{product['id']}", json=change)
    assert answer.status_code == 200
    body = answer.json()
    assert body == product | change | {"version": 2, "updated_at": body["updated_at"]}
    assert body == (await client.get(f"/api/products/{product['id']}")).json()


async def test_every_change_raises_the_version(client: AsyncClient, product: dict[str, Any]) -> None:
    address = f"/api/products/{product['id']}"
    assert (await client.patch(address, json={"stock": 1})).json()["version"] == 2
    changed = (await client.put(address, json=product_data(product["category"]["id"]))).json()
    assert changed["version"] == 3
    assert changed["created_at"] == product["created_at"]
    assert changed["updated_at"] > product["updated_at"]


async def test_a_deleted_product_is_gone(client: AsyncClient, product: dict[str, Any]) -> None:
    address = f"/api/products/{product['id']}"
    answer = await client.delete(address)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get(address)).status_code == 404
    assert (await client.delete(address)).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_a_product_that_does_not_exist_is_404(client: AsyncClient, category: dict[str, Any], method: str) -> None:
    body = {"PUT": product_data(category["id"]), "PATCH": {"stock": 1}}.get(method)
    answer = await client.request(method, "/api/products/99", json=body)
    assert answer.status_code == 404
    assert answer.json()["detail"] == "Product 99 does not exist."


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_sku_that_is_taken_is_409(client: AsyncClient, product: dict[str, Any], method: str) -> None:
    other = await create_product(client, sku="OTHER")
    data = product_data() if method != "PATCH" else {"sku": product["sku"]}
    address = "/api/products" if method == "POST" else f"/api/products/{other['id']}"
    answer = await client.request(method, address, json=data)
    assert answer.status_code == 409
    assert answer.json()["detail"] == "This sku is already taken."
    assert await skus(client) == [product["sku"], "OTHER"]


async def test_a_category_that_does_not_exist_is_422(client: AsyncClient, product: dict[str, Any]) -> None:
    answer = await client.patch(f"/api/products/{product['id']}", json={"category_id": 99})
    assert answer.status_code == 422
    detail = "This category_id refers to something that does not exist."
    assert answer.json()["errors"] == [{"location": "body", "pointer": "#/category_id", "detail": detail}]


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["L-1", "L-2", "M-1", "M-2"]),
        ("?sort=-id", ["M-2", "M-1", "L-2", "L-1"]),
        ("?sort=name", ["L-1", "L-2", "M-1", "M-2"]),
        ("?sort=-name", ["M-2", "M-1", "L-2", "L-1"]),
        ("?sort=price", ["M-1", "L-1", "M-2", "L-2"]),
        ("?sort=-price", ["L-2", "M-2", "L-1", "M-1"]),
        ("?sort=created_at", ["L-1", "L-2", "M-1", "M-2"]),
        ("?sort=-created_at", ["M-2", "M-1", "L-2", "L-1"]),
        ("?category=2", ["M-1", "M-2"]),
        ("?category=99", []),
        ("?min_price=900", ["L-1", "L-2", "M-2"]),
        ("?max_price=900.00", ["L-1", "M-1", "M-2"]),
        ("?min_price=900.01&max_price=1500.50", ["L-2"]),
        ("?in_stock=true", ["L-2", "M-1", "M-2"]),
        ("?in_stock=false", ["L-1"]),
        ("?category=2&min_price=500&in_stock=true&sort=-price", ["M-2"]),
    ],
)
async def test_a_list_is_sorted_and_filtered(client: AsyncClient, query: str, expected: list[str]) -> None:
    assert await skus(client, query) == expected


@pytest.mark.usefixtures("catalogue")
async def test_a_list_is_followed_by_its_links(client: AsyncClient) -> None:
    seen: list[str] = []
    address = "/api/products?sort=-price&limit=1&in_stock=true"
    while address:
        answer = await client.get(address)
        seen += [item["sku"] for item in answer.json()["items"]]
        assert 'rel="first"' in answer.headers["Link"]
        assert ("next" in answer.links) == (answer.json()["next_cursor"] is not None)
        address = answer.links.get("next", {}).get("url", "")
    assert seen == ["L-2", "M-2", "M-1"]


@pytest.mark.usefixtures("catalogue")
async def test_a_list_is_counted_only_on_request(client: AsyncClient) -> None:
    assert (await client.get("/api/products?limit=1")).json()["total"] is None
    assert (await client.get("/api/products?limit=1&total=true&category=2")).json()["total"] == 2


@pytest.mark.usefixtures("catalogue")
async def test_a_cursor_of_another_list_is_refused(client: AsyncClient) -> None:
    cursor = (await client.get("/api/categories?limit=1")).json()["next_cursor"]
    answer = await client.get(f"/api/products?cursor={cursor}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/cursor"


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("laptop", ["L-1", "L-2", "M-1"]),  # in the name before in the description
        ("laptops", ["L-1", "L-2", "M-1"]),
        ("LAPTOP aurora", ["L-1"]),
        ("lap", ["L-1", "L-2", "M-1"]),
        ("aurora lap", ["L-1"]),
        ("a", ["L-1"]),  # the beginning of a word, though a stop word by itself
        ("lap aurora", []),  # only the last word may be a beginning
        ("m-2", ["M-2"]),
        ("nothing", []),
        ("the", []),  # no word begins so
        ("laptop'; DROP TABLE products; --", []),
        ("' ! & |", None),
        ("lap:*", ["L-1", "L-2", "M-1"]),
        ("!aurora", ["L-1"]),
        ("aurora | cinema", []),
        ("back\\slash", []),
    ],
)
async def test_a_search_finds_words_and_the_beginning_of_the_last(
    client: AsyncClient, q: str, expected: list[str] | None
) -> None:
    answer = await client.get("/api/products/search", params={"q": q})
    if expected is None:
        assert answer.status_code == 422
    else:
        assert [item["sku"] for item in answer.json()["items"]] == expected


@pytest.mark.usefixtures("catalogue")
async def test_a_search_returns_no_more_than_its_limit(client: AsyncClient) -> None:
    answer = await client.get("/api/products/search?q=laptop&limit=1")
    assert [item["sku"] for item in answer.json()["items"]] == ["L-1"]


async def test_a_search_shows_the_passage_that_matches_as_html(client: AsyncClient, category: dict[str, Any]) -> None:
    await create_product(client, name='1 < 2 & "co"', description="A quiet laptop\x02, \x03quiet <i>light</i>.")
    [item] = (await client.get("/api/products/search?q=quiet+lap")).json()["items"]
    passage = item["passage"]  # PostgreSQL leaves out what looks like a tag
    assert "1 &lt; 2 &amp; &quot;co&quot; · A <mark>quiet</mark> <mark>laptop</mark>, <mark>quiet</mark>" in passage
    assert set(re.findall(r"<[^>]*>", passage)) == {"<mark>", "</mark>"}


async def test_a_search_follows_an_update(client: AsyncClient, product: dict[str, Any]) -> None:
    await client.patch(f"/api/products/{product['id']}", json={"name": "Zephyr"})
    answer = await client.get("/api/products/search?q=zephyr")
    assert [item["name"] for item in answer.json()["items"]] == ["Zephyr"]


async def test_facets_count_products_by_category_and_follow_every_change(client: AsyncClient) -> None:
    await create_category(client, "Laptops")
    await create_category(client, "Cameras")
    await create_product(client, 1, sku="A", price="10.00")
    await create_product(client, 1, sku="B", price="30.50")
    cameras = {"id": 2, "name": "Cameras", "products": 0, "min_price": None, "max_price": None}
    laptops = {"id": 1, "name": "Laptops", "products": 2, "min_price": "10.00", "max_price": "30.50"}
    for _ in range(2):
        assert (await client.get("/api/products/facets")).json() == {"categories": [cameras, laptops]}
    await client.delete("/api/products/2")
    laptops |= {"products": 1, "max_price": "10.00"}
    assert (await client.get("/api/products/facets")).json() == {"categories": [cameras, laptops]}
    await client.patch("/api/categories/2", json={"name": "Digital cameras"})
    cameras["name"] = "Digital cameras"
    assert (await client.get("/api/products/facets")).json() == {"categories": [cameras, laptops]}


async def test_facets_are_counted_once(client: AsyncClient, service: Service) -> None:
    await create_category(client)
    await client.get("/api/products/facets")
    before = service.state["database"].reads.statements
    await client.get("/api/products/facets")
    assert service.state["database"].reads.statements == before


async def test_a_list_with_every_filter_and_its_total_takes_one(wired: AsyncClient, wire: WirePostgres) -> None:
    for number in (1, 2):
        with wire.counting() as count:
            await wired.get(f"/api/products?limit=2{number}&total=true&category=1&in_stock=true&min_price=1")
    assert count.round_trips == 1, count.statements


@pytest.mark.parametrize(("version", "expected"), [('"1.x"', 5), ('"0.x"', 3)])
async def test_a_condition_costs_no_round_trip(
    wired: AsyncClient, wire: WirePostgres, version: str, expected: int
) -> None:
    for path in ("/api/products", "/api/categories"):
        await wired.patch(f"{path}/2", json={"name": "Prepared"}, headers={"If-Match": version})
        with wire.counting() as count:
            answer = await wired.patch(f"{path}/3", json={"name": "Changed"}, headers={"If-Match": version})
        assert count.round_trips == expected, count.statements
        assert answer.status_code == (200 if expected == 5 else 412)


async def test_a_list_takes_one_statement_however_long(wired: AsyncClient, wire: WirePostgres) -> None:
    await wired.get("/api/products?limit=100")
    for number in range(20):
        await create_product(wired, 1, sku=f"MANY-{number}")
    with wire.counting() as count:
        answer = await wired.get("/api/products?limit=100")
    assert len(answer.json()["items"]) == 23
    assert len(count.statements) == 1


async def test_a_search_for_one_letter_ranks_a_bounded_number(
    client: AsyncClient, category: dict[str, Any], onlooker: asyncpg.Connection
) -> None:
    await onlooker.execute(
        "INSERT INTO products (sku, name, price, stock, category_id)"
        " SELECT 'S-' || i, 'Apple ' || i || CASE WHEN i > 2999 THEN ' zebra' ELSE '' END, 1, 1, $1"
        " FROM generate_series(1, 3000) AS i",
        category["id"],
    )
    await onlooker.execute("ANALYZE products")
    sql, arguments = SEARCH.bind({"words": "", "last": "'a':*", "limit": 20})
    [[explained]] = await onlooker.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)
    nodes = [json.loads(explained)[0]["Plan"]]
    for node in nodes:
        nodes += node.get("Plans", [])
        assert node["Actual Rows"] <= MOST_RANKED or node["Node Type"] == "Bitmap Index Scan"
    assert len(nodes) > 3
    answer = await client.get("/api/products/search?q=a")
    assert len(answer.json()["items"]) == 20
    answer = await client.get("/api/products/search?q=apple ze")  # one of the last rows
    assert [item["sku"] for item in answer.json()["items"]] == ["S-3000"]
