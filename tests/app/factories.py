"""What tests send."""

from typing import Any

from httpx import AsyncClient


def product_data(category_id: int = 1, **changes: Any) -> dict[str, Any]:
    data = {
        "sku": "LAP-000001",
        "name": "Aurora 14 Laptop",
        "description": "Light and quiet.",
        "price": "1299.00",
        "stock": 7,
        "category_id": category_id,
    }
    return data | changes


async def create_category(client: AsyncClient, name: str = "Laptops", **changes: Any) -> dict[str, Any]:
    return await created(client, "/api/categories", {"name": name, **changes})


async def create_product(client: AsyncClient, category_id: int = 1, **changes: Any) -> dict[str, Any]:
    return await created(client, "/api/products", product_data(category_id, **changes))


async def create_order(client: AsyncClient, *lines: tuple[int, int]) -> dict[str, Any]:
    """An order of these products, each with its quantity."""
    return await created(client, "/api/orders", order_data(*lines))


def order_data(*lines: tuple[int, int]) -> dict[str, Any]:
    return {"lines": [{"product_id": id, "quantity": quantity} for id, quantity in lines]}


async def created(client: AsyncClient, path: str, data: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=data)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body
