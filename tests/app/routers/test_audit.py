from collections.abc import AsyncIterator

import asyncpg
import pytest
from httpx import AsyncClient

from app.main import create_app
from app.routers import audit
from app.settings import Settings
from plinth.testing.client import serve

ADD = """
    INSERT INTO plinth_audit (actor, request_id, table_name, row_id, action, before, after)
    SELECT 'user:' || n % 2, 'request-1', 'things', n::text, 'update', '{"price": 1}', '{"price": 2}'
    FROM generate_series(1, 3) AS n
"""


@pytest.fixture
async def client(settings: Settings, onlooker: asyncpg.Connection) -> AsyncIterator[AsyncClient]:
    await onlooker.execute("TRUNCATE plinth_audit RESTART IDENTITY")
    await onlooker.execute(ADD)
    app = create_app(settings)
    app.include_router(audit.router)
    async with serve(app) as service, service.client() as client:
        yield client
    await onlooker.execute("TRUNCATE plinth_audit RESTART IDENTITY")


async def test_changes_are_listed_the_latest_first(client: AsyncClient) -> None:
    page = (await client.get("/api/audit")).json()
    assert [item["id"] for item in page["items"]] == [3, 2, 1]
    item = page["items"][0]
    assert item.pop("at").endswith("Z")
    assert item == {
        "id": 3,
        "actor": "user:1",
        "request_id": "request-1",
        "table_name": "things",
        "row_id": "3",
        "action": "update",
        "before": {"price": 1},
        "after": {"price": 2},
    }


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"table": "things", "row": "2"}, [2]),
        ({"actor": "user:1"}, [3, 1]),
        ({"table": "other"}, []),
        ({"sort": "id"}, [1, 2, 3]),
    ],
)
async def test_they_are_filtered(client: AsyncClient, query: dict[str, str], ids: list[int]) -> None:
    answer = await client.get("/api/audit", params=query)
    assert [item["id"] for item in answer.json()["items"]] == ids


async def test_pages_are_linked(client: AsyncClient) -> None:
    first = await client.get("/api/audit", params={"limit": 2, "total": True})
    assert first.json()["total"] == 3
    second = await client.get(first.links["next"]["url"])
    assert [item["id"] for item in second.json()["items"]] == [1]


@pytest.mark.parametrize(
    "query", [{"sort": "at"}, {"actor": "a\0"}, {"actor": "a" * 501}, {"unknown": "1"}, {"cursor": "x"}]
)
async def test_other_queries_are_refused(client: AsyncClient, query: dict[str, str]) -> None:
    assert (await client.get("/api/audit", params=query)).status_code == 422
