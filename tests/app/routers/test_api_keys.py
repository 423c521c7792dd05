"""API keys: credentials of programs, which may do at most what their user may."""

from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient

from app.enums import Role
from app.scopes import CONTENT_WRITE, USERS_ADMIN
from app.settings import Settings
from tests.app.accounts import headers_of
from tests.app.meeting import while_locked
from tests.app.resources import JOB


async def create(client: AsyncClient, *scopes: str, **more: Any) -> dict[str, Any]:
    answer = await client.post("/api/api-keys", json={"name": "Import", "scopes": [*scopes], **more})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    created: dict[str, Any] = answer.json()
    return created


def bearer(created: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {created['key']}"}


async def test_a_key_is_shown_once_and_stored_as_a_hash(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    created = await create(client, CONTENT_WRITE)
    key = created.pop("key")
    assert key.startswith("key_")
    assert created["hint"] == key[:10]
    assert (await client.get("/api/api-keys")).json() == {"items": [created]}
    assert key not in str(await onlooker.fetch("SELECT * FROM api_keys"))


async def test_a_key_may_do_what_its_scopes_say_and_no_more(client: AsyncClient) -> None:
    for scopes, status in (([], 403), ([CONTENT_WRITE], 403), ([CONTENT_WRITE, USERS_ADMIN], 200)):
        key = bearer(await create(client, *scopes))
        assert (await client.get("/api/users", headers=key)).status_code == status
        assert (await client.get(f"/api/jobs/{JOB}", headers=key)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/api-keys", {"name": "Another"}),
        ("POST", "/api/auth/password/change", {"current_password": "testpass123", "new_password": "correct horse"}),
        ("POST", "/api/auth/logout", {"all": True}),
        ("DELETE", "/api/users/me", None),
        ("GET", "/api/users/me/sessions", None),
    ],
)
async def test_a_key_does_not_take_over_the_account(
    client: AsyncClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    key = bearer(await create(client, CONTENT_WRITE, USERS_ADMIN))
    assert (await client.request(method, path, json=body, headers=key)).status_code == 403


async def test_an_administrators_key_cannot_change_its_own_account(client: AsyncClient) -> None:
    key = bearer(await create(client, USERS_ADMIN))
    assert (await client.patch("/api/users/3", json={"role": "user"}, headers=key)).status_code == 409
    assert (await client.patch("/api/users/1", json={"role": "editor"}, headers=key)).status_code == 200


async def test_a_key_never_has_more_than_its_user(client: AsyncClient, settings: Settings) -> None:
    editor = headers_of(settings, Role.EDITOR)
    for scope in (USERS_ADMIN, "no such scope"):
        refused = await client.post("/api/api-keys", json={"name": "More", "scopes": [scope]}, headers=editor)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/scopes")
    await client.patch("/api/users/2", json={"role": "admin"})
    created = await client.post("/api/api-keys", json={"name": "Mine", "scopes": [USERS_ADMIN]}, headers=editor)
    key = bearer(created.json())
    assert (await client.get("/api/users", headers=key)).status_code == 200
    await client.patch("/api/users/2", json={"role": "editor"})
    assert (await client.get("/api/users", headers=key)).status_code == 403
    await client.patch("/api/users/2", json={"is_active": False})
    assert (await client.get("/api/users", headers=key)).status_code == 401


async def test_a_deleted_key_is_refused_at_once_and_only_its_user_deletes_it(
    client: AsyncClient, settings: Settings
) -> None:
    created = await create(client, USERS_ADMIN)
    key, url = bearer(created), f"/api/api-keys/{created['id']}"
    assert (await client.get("/api/users", headers=key)).status_code == 200
    assert (await client.delete(url, headers=headers_of(settings, Role.EDITOR))).status_code == 404
    assert (await client.delete(url)).status_code == 204
    assert (await client.delete(url)).status_code == 404
    assert (await client.get("/api/users", headers=key)).status_code == 401


async def test_a_key_expires(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    past = await client.post("/api/api-keys", json={"name": "Late", "expires_at": "2020-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["errors"][0]["pointer"]) == (422, "#/expires_at")
    key = bearer(await create(client, USERS_ADMIN, expires_at="2999-01-01T00:00:00+01:00"))
    await onlooker.execute("UPDATE api_keys SET expires_at = now()")
    assert (await client.get("/api/users", headers=key)).status_code == 401


async def test_keys_are_for_confirmed_addresses_and_are_not_many(
    client: AsyncClient, onlooker: asyncpg.Connection, database_url: str
) -> None:
    await onlooker.execute("UPDATE users SET verified_at = NULL WHERE id = 3")
    assert (await client.post("/api/api-keys", json={"name": "Early"})).status_code == 409
    await onlooker.execute("UPDATE users SET verified_at = now() WHERE id = 3")
    for _ in range(49):
        await create(client)
    # The 50th is being created, and is committed while the 51st is asked for.
    insert = "INSERT INTO api_keys (user_id, name, hash, hint, scopes) VALUES (3, '50', '50', '50', '{}')"
    last = f"SELECT FROM users WHERE id = 3 FOR UPDATE; {insert}"
    answer = await while_locked(
        onlooker, database_url, last, lambda: client.post("/api/api-keys", json={"name": "Too many"})
    )
    assert answer.status_code == 409
    assert await onlooker.fetchval("SELECT count(*) FROM api_keys") == 50


@pytest.mark.parametrize("field", ["id", "user_id", "hash", "hint", "key"])
async def test_nothing_else_of_a_key_is_the_clients(client: AsyncClient, field: str) -> None:
    answer = await client.post("/api/api-keys", json={"name": "Mine", field: "1"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"#/{field}")
