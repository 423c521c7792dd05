from collections.abc import AsyncIterator

import asyncpg
import pytest
from httpx import AsyncClient

from app.enums import Role
from app.settings import Settings
from plinth.testing.client import Service
from tests.app.accounts import IDS, PASSWORD, headers_of

ADD = """
    INSERT INTO plinth_audit (actor, request_id, table_name, row_id, action, before, after)
    SELECT 'user:' || n % 2, 'request-1', 'things', n::text, 'update', '{"price": 1}', '{"price": 2}'
    FROM generate_series(1, 3) AS n
"""


@pytest.fixture
async def client(
    service: Service, settings: Settings, accounts: None, onlooker: asyncpg.Connection
) -> AsyncIterator[AsyncClient]:
    await onlooker.execute("TRUNCATE plinth_audit RESTART IDENTITY")
    await onlooker.execute(ADD)
    async with service.client(headers_of(settings, Role.ADMIN)) as client:
        yield client


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


async def test_a_change_of_an_account_names_the_administrator_and_the_request(client: AsyncClient) -> None:
    url, user = f"/api/users/{IDS[Role.USER]}", str(IDS[Role.USER])
    answer = await client.patch(url, json={"role": "editor"})
    assert answer.status_code == 200
    [entry, *_] = (await client.get("/api/audit", params={"table": "users", "row": user})).json()["items"]
    assert entry["actor"] == f"user:{IDS[Role.ADMIN]}"
    assert entry["request_id"] == answer.headers["X-Request-ID"]
    assert (entry["action"], entry["before"]["role"], entry["after"]["role"]) == ("update", "user", "editor")


async def test_neither_passwords_nor_keys_are_in_it(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    change = {"current_password": PASSWORD, "new_password": "a lamp that shines"}
    assert (await client.post("/api/auth/password/change", json=change)).status_code == 204
    key = (await client.post("/api/api-keys", json={"name": "Shop", "scopes": []})).json()
    hashes = await onlooker.fetch("SELECT password_hash FROM users UNION ALL SELECT hash::text FROM api_keys")
    entries = await onlooker.fetch("SELECT table_name, after::text FROM plinth_audit WHERE actor IS NOT NULL")
    assert {entry["table_name"] for entry in entries} >= {"users", "api_keys"}
    for secret in ("a lamp that shines", key["key"], *(row[0] for row in hashes)):
        assert not [entry for entry in entries if secret in (entry["after"] or "")]
