"""Orders take stock and return it, each in one transaction, and are shown to whom they belong."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from app.enums import OrderStatus, Role
from app.models import Order
from app.repositories.orders import OrderQueries, OrderRepository
from app.services.orders import MOVES
from app.settings import Settings
from plinth.database import open_database
from plinth.testing.client import Service
from plinth.testing.queries import QueryBudget
from plinth.testing.wire import WirePostgres
from tests.app.accounts import headers_of
from tests.app.factories import create_category, create_order, create_product, order_data
from tests.app.mailbox import read_mails

PENDING, SHIPPED, CANCELLED = OrderStatus


@pytest.fixture(autouse=True)
async def products(client: AsyncClient) -> None:
    """Three, of each of which 7 are in stock."""
    await create_category(client)
    for number in (1, 2, 3):
        await create_product(client, sku=f"SKU-{number}", name=f"Product {number}", price=f"{number}.50")


async def stock(onlooker: asyncpg.Connection) -> list[int]:
    return [row["stock"] for row in await onlooker.fetch("SELECT stock FROM products ORDER BY id")]


async def test_an_order_is_answered_whole_and_takes_the_stock(
    client: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    answer = await client.post("/api/orders", json=order_data((3, 2), (1, 7)))
    assert (answer.status_code, answer.headers["Location"]) == (201, "/api/orders/1")
    body = answer.json()
    again = await client.get("/api/orders/1")
    assert (again.json(), again.headers["ETag"]) == (body, answer.headers["ETag"])
    assert (await client.get("/api/orders")).json()["items"] == [body]
    assert body["created_at"] == body["updated_at"]
    assert {key: body[key] for key in body.keys() - {"created_at", "updated_at"}} == {
        "id": 1,
        "user_id": 3,
        "status": "pending",
        "total": "17.50",
        "lines": [
            {"product_id": 1, "sku": "SKU-1", "name": "Product 1", "price": "1.50", "quantity": 7},
            {"product_id": 3, "sku": "SKU-3", "name": "Product 3", "price": "3.50", "quantity": 2},
        ],
        "version": 1,
    }
    assert await stock(onlooker) == [0, 7, 5]
    assert (await client.get("/api/products/1")).json()["stock"] == 0


async def test_the_line_that_fails_is_named_and_nothing_is_taken(
    client: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    answer = await client.post("/api/orders", json=order_data((1, 1), (3, 8), (2, 9)))
    problem = answer.json()
    assert (answer.status_code, problem["detail"]) == (409, "Line 2 asks for 8 of SKU-3; 7 are left.")
    assert [(fault["location"], fault["pointer"]) for fault in problem["errors"]] == [("body", "#/lines/1/quantity")]
    answer = await client.post("/api/orders", json=order_data((1, 1), (99, 1)))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/lines/1/product_id")
    assert await stock(onlooker) == [7, 7, 7]
    for table in ("orders", "order_lines", "plinth_jobs WHERE name = 'order_mail'"):
        assert await onlooker.fetchval(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({}, "#/lines"),
        ({"lines": []}, "#/lines"),
        (order_data(*((id, 1) for id in range(1, 102))), "#/lines"),
        (order_data((1, 1), (2, 1), (1, 2)), "#/lines/2/product_id"),
        (order_data((1, 0)), "#/lines/0/quantity"),
        (order_data((1, -1)), "#/lines/0/quantity"),
        (order_data((1, 1001)), "#/lines/0/quantity"),
        (order_data((0, 1)), "#/lines/0/product_id"),
        ({"lines": [{"product_id": "1", "quantity": 1}]}, "#/lines/0/product_id"),
        ({"lines": [{"product_id": 1, "quantity": 1.5}]}, "#/lines/0/quantity"),
        ({"lines": [{"product_id": 1, "quantity": 1, "price": "0.01"}]}, "#/lines/0/price"),
    ],
)
async def test_what_cannot_be_ordered_is_pointed_at(
    client: AsyncClient, onlooker: asyncpg.Connection, data: dict[str, Any], pointer: str
) -> None:
    answer = await client.post("/api/orders", json=data)
    assert (answer.status_code, [fault["pointer"] for fault in answer.json()["errors"]]) == (422, [pointer])
    assert await stock(onlooker) == [7, 7, 7]


async def test_a_page_takes_as_many_statements_as_one_order(client: AsyncClient, query_budget: QueryBudget) -> None:
    for number in (1, 2, 3):
        assert (await client.post("/api/orders", json=order_data((number, 1)))).status_code == 201
    with query_budget(2):  # the orders, and the lines of all of them
        assert len((await client.get("/api/orders")).json()["items"]) == 3
    with query_budget(2):
        await client.get("/api/orders/1")


async def test_later_changes_of_a_product_do_not_change_an_order(client: AsyncClient) -> None:
    order = await create_order(client, (1, 1))
    assert (await client.patch("/api/products/1", json={"price": "99.00", "name": "New"})).status_code == 200
    assert (await client.get("/api/orders/1")).json() == order
    deleted = await client.delete("/api/products/1")
    assert (deleted.status_code, deleted.json()["detail"]) == (
        409,
        "It cannot be deleted while something else refers to it.",
    )
    assert (await client.delete("/api/products/2")).status_code == 204


async def test_an_order_that_is_sent_again_is_made_once(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    key = {"Idempotency-Key": "c5d0e1f2"}
    answers = [await client.post("/api/orders", json=order_data((1, 3)), headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert await stock(onlooker) == [4, 7, 7]


MOVE = {SHIPPED: "ship", CANCELLED: "cancel"}


@pytest.mark.parametrize("to", MOVE)
@pytest.mark.parametrize("status", OrderStatus)
async def test_only_a_pending_order_moves(
    client: AsyncClient, onlooker: asyncpg.Connection, status: OrderStatus, to: OrderStatus
) -> None:
    before = await create_order(client, (1, 2))
    await onlooker.execute("UPDATE orders SET status = $1", status.value)
    answer = await client.post(f"/api/orders/1/{MOVE[to]}")
    assert (to in MOVES[status]) == (status is PENDING)
    if status is PENDING:
        assert (answer.status_code, answer.json()) == (200, (await client.get("/api/orders/1")).json())
        assert answer.json() == before | {"status": to, "version": 2, "updated_at": answer.json()["updated_at"]}
    else:
        expected = f"Order 1 is {status} already, and cannot be {to} any more."
        assert (answer.status_code, answer.json()["detail"]) == (409, expected)
    assert await stock(onlooker) == [7 if (status, to) == (PENDING, CANCELLED) else 5, 7, 7]


async def test_a_move_takes_a_condition(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    await create_order(client, (1, 2))
    etag = (await client.get("/api/orders/1")).headers["ETag"]
    refused = await client.post("/api/orders/1/ship", headers={"If-Match": '"99.x"'})
    assert refused.status_code == 412
    assert (await client.post("/api/orders/1/cancel", headers={"If-Match": etag})).status_code == 200


async def test_stock_that_has_no_room_for_the_return_is_left_alone(
    client: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    await create_order(client, (1, 2), (2, 2))
    await onlooker.execute("UPDATE products SET stock = 2147483647 WHERE id = 2")
    answer = await client.post("/api/orders/1/cancel")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "The stock of SKU-2 is too large for 2 more. Correct it first.",
    )
    assert await stock(onlooker) == [5, 2147483647, 7]
    assert (await client.get("/api/orders/1")).json()["status"] == "pending"


async def test_each_user_has_the_own_orders_and_administrators_all(
    client: AsyncClient, service: Service, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    async with service.client(headers_of(settings, Role.USER)) as user:
        await create_order(client, (1, 1))
        for _ in range(3):
            await create_order(user, (1, 1))

        async def ids(client: AsyncClient, query: str = "") -> list[int]:
            page = (await client.get(f"/api/orders{query}")).json()
            return [item["id"] for item in page["items"]]

        assert (await ids(client), await ids(user)) == ([4, 3, 2, 1], [4, 3, 2])
        assert [(await user.get(f"/api/orders/{id}")).status_code for id in (1, 2, 9)] == [404, 200, 404]
        assert (await client.get("/api/orders/2")).status_code == 200
        assert (await user.post("/api/orders/1/cancel")).status_code == 404
        assert (await user.post("/api/orders/2/ship")).status_code == 403
        assert (await client.post("/api/orders/2/ship")).status_code == 200
        assert (await ids(user, "?status=shipped"), await ids(user, "?status=cancelled")) == ([2], [])
        page = (await user.get("/api/orders?limit=2&total=true")).json()
        assert page["total"] == 3
        assert await ids(user, f"?limit=2&cursor={page['next_cursor']}") == [2]
        assert (await user.get("/api/orders?user_id=3")).status_code == 422
        assert (await user.delete("/api/users/me")).status_code == 204
    # What was sold stays in the books.
    assert [item["user_id"] for item in (await client.get("/api/orders")).json()["items"]] == [None, None, None, 3]


async def test_a_confirmation_is_mailed(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection, tmp_path: Path
) -> None:
    await create_order(client, (1, 2), (2, 1))
    mail = settings.mail.model_copy(update={"folder": tmp_path})
    mailing = settings.model_copy(update={"mail": mail})
    [message] = await read_mails(mailing, tmp_path, onlooker, "order_mail")
    assert (message["Subject"], message["To"]) == ("Your order 1", "Admin <admin@example.com>")
    text = message.get_content()
    for part in ("order of 5.50", "2 x SKU-1 Product 1, 1.50 each", "1 x SKU-2 Product 2, 2.50 each"):
        assert part in text


async def test_orders_with_their_lines_and_products_are_two_statements(
    client: AsyncClient, settings: Settings, wire: WirePostgres
) -> None:
    """By `Query` and by the session. One statement for each order, the N+1 way, needs as many as there are orders."""
    for _ in range(3):
        await create_order(client, (1, 1), (2, 1), (3, 1))
    one_each = {"url": wire.through(settings.database.url), "pool_size": 1, "read_pool_size": 1}
    through = settings.database.model_copy(update=one_each)
    async with open_database(through, "test") as database:
        queries = OrderQueries(database.reads)
        assert await queries.get(1)  # once in a connection's life, the driver reads what an enum is
        with wire.counting() as count:
            page = await queries.page(sort="id", limit=10, cursor=None, total=False)
            lines = await queries.lines(row.id for row in page.rows)
        assert (len(page.rows), len(lines), len(count.statements)) == (3, 9, 2)
        with wire.counting() as count:
            for row in page.rows:
                await queries.lines([row.id])
        assert len(count.statements) == 3
        async with database.sessions.begin() as session:
            await session.connection()
            with wire.counting() as count:
                order = await OrderRepository(session).find(1)
                assert order is not None
                assert [line.product.sku for line in order.lines] == ["SKU-1", "SKU-2", "SKU-3"]
            assert len([each for each in count.statements if each.startswith("SELECT")]) == 2, count.statements
        async with database.sessions.begin() as session:
            await touch_lines(session)


async def touch_lines(session: AsyncSession) -> None:
    """What would load one order after the other raises."""
    order = await session.get_one(Order, 2)
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = order.lines
