from typing import Any

import pytest
from fastapi import APIRouter
from httpx import AsyncClient

from app.dependencies import SessionDep
from app.main import create_app
from app.models import Category
from app.settings import Settings
from plinth.http import FastRoute
from plinth.testing.client import serve
from tests.app.factories import create_category, create_product


@pytest.fixture
async def category(client: AsyncClient) -> dict[str, Any]:
    return await create_category(client, description="Thin and light.")


async def test_a_created_category_is_answered_whole(client: AsyncClient) -> None:
    answer = await client.post("/api/categories", json={"name": "Laptops"})
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/api/categories/1"
    body = answer.json()
    assert body == {
        "id": 1,
        "name": "Laptops",
        "description": "",
        "version": 1,
        "created_at": body["created_at"],
        "updated_at": body["created_at"],
    }
    assert (await client.get("/api/categories/1")).json() == body


async def test_put_replaces_every_field(client: AsyncClient, category: dict[str, Any]) -> None:
    body = (await client.put("/api/categories/1", json={"name": "Notebooks"})).json()
    assert (body["name"], body["description"], body["version"]) == ("Notebooks", "", 2)


async def test_patch_changes_only_what_is_sent(client: AsyncClient, category: dict[str, Any]) -> None:
    body = (await client.patch("/api/categories/1", json={"name": "Notebooks"})).json()
    assert body == category | {"name": "Notebooks", "version": 2, "updated_at": body["updated_at"]}


async def test_a_renamed_category_shows_on_its_products(client: AsyncClient, category: dict[str, Any]) -> None:
    await create_product(client)
    await client.patch("/api/categories/1", json={"name": "Notebooks"})
    assert (await client.get("/api/products/1")).json()["category"] == {"id": 1, "name": "Notebooks"}


async def test_a_deleted_category_is_gone(client: AsyncClient, category: dict[str, Any]) -> None:
    assert (await client.delete("/api/categories/1")).status_code == 204
    assert (await client.get("/api/categories/1")).status_code == 404


async def test_a_category_in_use_cannot_be_deleted(client: AsyncClient, category: dict[str, Any]) -> None:
    await create_product(client)
    answer = await client.delete("/api/categories/1")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "It cannot be deleted while something else refers to it."
    assert (await client.get("/api/categories/1")).json() == category
    await client.delete("/api/products/1")
    assert (await client.delete("/api/categories/1")).status_code == 204


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_a_category_that_does_not_exist_is_404(client: AsyncClient, method: str) -> None:
    body = {"name": "Nothing"} if method in {"PUT", "PATCH"} else None
    answer = await client.request(method, "/api/categories/99", json=body)
    assert answer.status_code == 404
    assert answer.json()["detail"] == "Category 99 does not exist."


async def test_a_name_that_is_taken_is_409(client: AsyncClient, category: dict[str, Any]) -> None:
    answer = await client.post("/api/categories", json={"name": "Laptops"})
    assert answer.status_code == 409
    assert answer.json()["detail"] == "This name is already taken."


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["Monitors", "Audio", "Laptops"]),
        ("?sort=name", ["Audio", "Laptops", "Monitors"]),
        ("?sort=-name", ["Monitors", "Laptops", "Audio"]),
        ("?sort=-created_at", ["Laptops", "Audio", "Monitors"]),
    ],
)
async def test_a_list_is_sorted(client: AsyncClient, query: str, expected: list[str]) -> None:
    for name in ("Monitors", "Audio", "Laptops"):
        await create_category(client, name)
    answer = await client.get(f"/api/categories{query}")
    assert [item["name"] for item in answer.json()["items"]] == expected


async def test_a_list_is_followed_by_its_links(client: AsyncClient) -> None:
    for name in ("Monitors", "Audio", "Laptops"):
        await create_category(client, name)
    first = await client.get("/api/categories?sort=name&limit=2&total=true")
    assert first.json()["total"] == 3
    second = await client.get(first.links["next"]["url"])
    assert [item["name"] for item in second.json()["items"]] == ["Monitors"]
    assert second.json()["next_cursor"] is None


async def test_an_endpoint_of_ones_own_changes_entities_by_the_orm(settings: Settings, client: AsyncClient) -> None:
    """`flush()`, then `version` and `updated_at`, without another statement."""
    await create_category(client)
    created = (await client.get("/api/categories/1")).json()
    router = APIRouter(route_class=FastRoute)

    @router.post("/renamed/{id}")
    async def rename(id: int, session: SessionDep) -> dict[str, int | str]:
        category = await session.get_one(Category, id)
        category.name = "Renamed"
        await session.flush()
        return {"version": category.version, "updated_at": category.updated_at.isoformat()}

    app = create_app(settings)
    app.include_router(router)
    async with serve(app) as service, service.client() as mine:
        answer = await mine.post("/renamed/1")
    assert answer.json()["version"] == created["version"] + 1
    assert answer.json()["updated_at"] > created["updated_at"]
