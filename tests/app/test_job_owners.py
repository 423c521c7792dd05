"""A job is of the user who has requested it: others do not learn that there is one."""

import asyncpg
from httpx import AsyncClient

from app.enums import Role
from app.scopes import REPORTS
from app.settings import Settings
from tests.app.accounts import email_of, headers_of


async def test_a_job_is_shown_to_who_requested_it_and_to_administrators(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    await onlooker.execute("UPDATE users SET role = 'editor' WHERE id = 1")
    owner, other = headers_of(settings, Role.EDITOR), headers_of(settings, Role.USER)
    keys = [await key_of(client, headers) for headers in (owner, other)]
    unscoped = await key_of(client, {})
    first = (await client.post("/api/reports/prices", headers=owner)).headers["Location"]
    for headers, status in [(owner, 200), (other, 404), (keys[0], 200), (keys[1], 404), (unscoped, 404), ({}, 200)]:
        answer = await client.get(first, headers=headers)
        assert answer.status_code == status, headers
    # While it waits, another user has another job, and the same user the same, also by an API key.
    second = (await client.post("/api/reports/prices", headers=other)).headers["Location"]
    assert second != first
    assert (await client.get(second, headers=other)).status_code == 200
    assert (await client.post("/api/reports/prices", headers=owner)).headers["Location"] == first
    scoped = await key_of(client, owner, REPORTS)
    assert (await client.post("/api/reports/prices", headers=scoped)).headers["Location"] == first
    # What no one has requested, such as mails and schedules, is shown to administrators only.
    await client.post("/api/auth/password/forgot", json={"email": email_of(Role.USER)})
    for id in await onlooker.fetch("SELECT id FROM plinth_jobs WHERE name IN ('account_mail', 'none')"):
        statuses = [(await client.get(f"/api/jobs/{id[0]}", headers=each)).status_code for each in (owner, other, {})]
        assert statuses == [404, 404, 200]


async def key_of(client: AsyncClient, headers: dict[str, str], *scopes: str) -> dict[str, str]:
    answer = await client.post("/api/api-keys", json={"name": "Import", "scopes": scopes}, headers=headers)
    return {"Authorization": f"Bearer {answer.json()['key']}"}
