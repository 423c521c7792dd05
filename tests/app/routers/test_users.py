"""Accounts, as their users and as administrators see them, and the sessions of each."""

import asyncpg
import pytest
from httpx import AsyncClient

from app.enums import Role
from app.jobs import PRUNE_ACCOUNTS, PruneAccounts
from app.settings import Settings
from plinth.database import Database
from plinth.jobs import Jobs
from plinth.testing.client import Service
from tests.app.accounts import IDS, email_of, headers_of, logins_of
from tests.app.resources import JOB
from tests.app.worker import finished, working

USER = IDS[Role.USER]


async def test_users_see_and_change_their_own_account(
    anonymous: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    mine = headers_of(settings, Role.USER)
    got = await anonymous.get("/api/users/me", headers=mine)
    me = got.json()
    assert (me["id"], me["email"], me["name"], me["role"]) == (USER, email_of(Role.USER), "User", "user")
    assert got.headers["Cache-Control"] == "private, no-cache"
    assert "hash" not in got.text
    match = {**mine, "If-Match": got.headers["ETag"]}
    changed = await anonymous.patch("/api/users/me", json={"name": "Ada"}, headers=match)
    assert changed.json() == {**me, "name": "Ada", "version": 2, "updated_at": changed.json()["updated_at"]}
    assert (await anonymous.patch("/api/users/me", json={"name": "Eve"}, headers=match)).status_code == 412
    assert await onlooker.fetchval("SELECT name FROM users WHERE id = 1") == "Ada"


@pytest.mark.parametrize("field", ["role", "id", "email", "is_active", "verified_at", "password_hash", "version"])
async def test_users_change_nothing_else_of_it(
    anonymous: AsyncClient, settings: Settings, onlooker: asyncpg.Connection, field: str
) -> None:
    before = await onlooker.fetch("SELECT * FROM users")
    body = {"name": "Ada", field: "admin"}
    answer = await anonymous.patch("/api/users/me", json=body, headers=headers_of(settings, Role.USER))
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"#/{field}"]
    assert await onlooker.fetch("SELECT * FROM users") == before


async def test_an_account_that_is_deleted_leaves_nothing(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    mine = headers_of(settings, Role.USER)
    key = (await client.post("/api/api-keys", json={"name": "Mine"}, headers=mine)).json()["key"]
    by_key = {"Authorization": f"Bearer {key}"}
    assert (await client.get(f"/api/jobs/{JOB}", headers=by_key)).status_code == 404  # another user's
    assert (await client.delete("/api/users/me", headers=mine)).status_code == 204
    for headers in (mine, by_key):
        assert (await client.get(f"/api/jobs/{JOB}", headers=headers)).status_code == 401
    for table in ("logins", "mail_tokens", "api_keys"):
        assert await onlooker.fetchval(f"SELECT count(*) FROM {table} WHERE user_id = 1") == 0
    assert (await client.get(f"/api/users/{USER}")).status_code == 404


async def test_sessions_are_listed_and_ended_one_by_one(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    current, other, _ = logins_of(Role.USER)
    mine, others = headers_of(settings, Role.USER), headers_of(settings, Role.USER, other)
    await onlooker.execute("UPDATE logins SET expires_at = now() WHERE id = $1", logins_of(Role.USER)[2])
    sessions = (await client.get("/api/users/me/sessions", headers=mine)).json()["items"]
    assert {each["id"]: each["is_current"] for each in sessions} == {str(current): True, str(other): False}
    assert {each["user_agent"] for each in sessions} == {"tests"}
    assert (await client.get("/api/users/me", headers=others)).status_code == 200
    foreign = logins_of(Role.EDITOR)[0]
    assert (await client.delete(f"/api/users/me/sessions/{foreign}", headers=mine)).status_code == 404
    if_known = {**mine, "If-Match": '"1.a"'}
    assert (await client.delete(f"/api/users/me/sessions/{other}", headers=if_known)).status_code == 412
    assert (await client.get("/api/users/me", headers=others)).status_code == 200
    if_there = {**mine, "If-Match": "*"}
    assert (await client.delete(f"/api/users/me/sessions/{other}", headers=if_there)).status_code == 204
    assert (await client.delete(f"/api/users/me/sessions/{other}", headers=mine)).status_code == 404
    assert (await client.get("/api/users/me", headers=others)).status_code == 401
    assert (await client.get("/api/users/me", headers=headers_of(settings, Role.EDITOR))).status_code == 200


async def test_a_session_shows_which_program_it_is_of(anonymous: AsyncClient) -> None:
    credentials = {"email": email_of(Role.USER), "password": "testpass123"}
    agent = {b"User-Agent": b"Browser\t\xff" + b"x" * 300}
    pair = (await anonymous.post("/api/auth/login", json=credentials, headers=agent)).json()
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    [latest, *_] = (await anonymous.get("/api/users/me/sessions", headers=headers)).json()["items"]
    assert (latest["is_current"], len(latest["user_agent"])) == (True, 200)
    assert latest["user_agent"].startswith("Browserÿx")


async def test_administrators_list_accounts(client: AsyncClient) -> None:
    page = (await client.get("/api/users?sort=-email&limit=2&total=true")).json()
    assert ([each["email"] for each in page["items"]], page["total"]) == (["user@example.com", "editor@example.com"], 3)
    following = (await client.get(f"/api/users?sort=-email&limit=2&cursor={page['next_cursor']}")).json()
    assert [each["email"] for each in following["items"]] == ["admin@example.com"]
    assert [each["id"] for each in (await client.get("/api/users?role=editor")).json()["items"]] == [2]
    assert [each["id"] for each in (await client.get("/api/users?email=USER@example.com")).json()["items"]] == [1]
    assert (await client.get("/api/users?role=owner")).status_code == 422


async def test_a_role_takes_effect_at_once_in_sessions_that_are_open(client: AsyncClient, settings: Settings) -> None:
    mine = headers_of(settings, Role.USER)
    assert (await client.get("/api/users", headers=mine)).status_code == 403
    promoted = await client.patch(f"/api/users/{USER}", json={"role": "admin"})
    assert (promoted.status_code, promoted.json()["role"]) == (200, "admin")
    assert (await client.get("/api/users", headers=mine)).status_code == 200
    await client.patch(f"/api/users/{USER}", json={"role": "editor"})
    assert (await client.get("/api/users", headers=mine)).status_code == 403


async def test_a_closed_account_is_refused_at_once_and_its_sessions_stay_ended(
    client: AsyncClient, settings: Settings
) -> None:
    mine = headers_of(settings, Role.USER)
    assert (await client.get("/api/users/me", headers=mine)).status_code == 200
    assert (await client.patch(f"/api/users/{USER}", json={"is_active": False})).status_code == 200
    assert (await client.get("/api/users/me", headers=mine)).status_code == 401
    await client.patch(f"/api/users/{USER}", json={"is_active": True})
    assert (await client.get("/api/users/me", headers=mine)).status_code == 401


@pytest.mark.parametrize("change", [{"role": "user"}, {"is_active": False}])
async def test_administrators_do_not_lock_themselves_out(client: AsyncClient, change: dict[str, object]) -> None:
    answer = await client.patch(f"/api/users/{IDS[Role.ADMIN]}", json=change)
    assert (answer.status_code, (await client.get("/api/users/me")).json()["role"]) == (409, "admin")


@pytest.mark.parametrize("field", ["id", "email", "name", "verified_at", "password_hash", "version"])
async def test_administrators_change_nothing_else(client: AsyncClient, field: str) -> None:
    answer = await client.patch(f"/api/users/{USER}", json={"role": "editor", field: "x"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"#/{field}")


async def test_what_has_expired_is_pruned(
    client: AsyncClient, service: Service, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    await onlooker.execute("UPDATE logins SET expires_at = now() - interval '1 s' WHERE user_id = 1")
    await onlooker.execute("UPDATE mail_tokens SET expires_at = now() - interval '1 s' WHERE purpose = 'reset'")
    await onlooker.execute("INSERT INTO plinth_login_attempts VALUES ('a', 1, now() - interval '2 days', now())")
    await onlooker.execute(
        "INSERT INTO refresh_tokens (hash, login_id, used_at) VALUES ('a', $1, now() - interval '31 days')",
        logins_of(Role.ADMIN)[0],
    )
    database: Database = service.state["database"]
    async with database.sessions.begin() as session:
        job = await Jobs(session).enqueue(PRUNE_ACCOUNTS, PruneAccounts())
    async with working(settings):
        assert (await finished(client, f"/api/jobs/{job}"))["state"] == "succeeded"
    left = {
        table: await onlooker.fetchval(f"SELECT count(*) FROM {table}")
        for table in ("logins", "mail_tokens", "refresh_tokens", "plinth_login_attempts")
    }
    assert left == {"logins": 6, "mail_tokens": 1, "refresh_tokens": 1, "plinth_login_attempts": 0}
