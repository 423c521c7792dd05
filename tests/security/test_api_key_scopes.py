"""An API key opens the routes of its scopes, and of a user's own objects none: every scope at every route."""

from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient

from app.enums import Role
from app.scopes import DESCRIPTIONS, ROLES
from app.settings import Settings
from plinth.security.principals import accesses
from plinth.testing.client import Service
from plinth.testing.resources import send
from tests.app.accounts import headers_of, logins_of
from tests.app.resources import RESOURCES
from tests.app.test_access import PEOPLE, PRINCIPALS, PUBLIC, WHO, assert_refused, restore, stored
from tests.app.test_labels import routes


def required(method: str, path: str) -> set[str]:
    """The scopes that a route says it needs."""
    [found] = [
        {*accesses(route)} - {""} for route in routes() if route.path_format == path and method in (route.methods or ())
    ]
    return found


@pytest.mark.parametrize(("method", "path"), [each for each in WHO if WHO[each] != PUBLIC])
async def test_a_key_opens_what_its_scope_names(
    *, client: AsyncClient, service: Service, onlooker: asyncpg.Connection, method: str, path: str
) -> None:
    await RESOURCES.create_all(client)
    keys = {scope: await key_of(client, scope) for scope in DESCRIPTIONS}
    needed = required(method, path)
    number = 0
    for scope, key in keys.items():
        allowed = WHO[method, path] == PRINCIPALS or needed == {scope}
        allowed &= WHO[method, path] != PEOPLE
        number += allowed
        url, body = (RESOURCES.urls(path)[0], None) if method == "GET" else RESOURCES.request(method, path, number or 1)
        before = await stored(onlooker)
        async with service.client(key) as program:
            answer = await send(program, method, url, body)
        if allowed:
            assert answer.is_success, f"{scope}: {answer.text}"
        else:
            assert await stored(onlooker) == before
            assert_refused(answer, 403)
        await restore(onlooker, path)


async def key_of(client: AsyncClient, *scopes: str) -> dict[str, str]:
    created = await client.post("/api/api-keys", json={"name": "Import", "scopes": scopes})
    return {"Authorization": f"Bearer {created.json()['key']}"}


@pytest.mark.parametrize("thief", [Role.USER, Role.EDITOR, Role.ADMIN])
async def test_no_ones_objects_are_anothers(
    *, service: Service, settings: Settings, accounts: None, onlooker: asyncpg.Connection, thief: Role
) -> None:
    """Sessions, API keys and accounts of others, also for administrators but where a route is theirs."""
    other = Role.USER if thief != Role.USER else Role.EDITOR
    async with service.client(headers_of(settings, other)) as theirs:
        key = (await theirs.post("/api/api-keys", json={"name": "Theirs"})).json()
    before = await stored(onlooker)
    async with service.client(headers_of(settings, thief)) as client:
        requests: list[tuple[str, str, Any]] = [
            *(("DELETE", f"/api/users/me/sessions/{login}", None) for login in logins_of(other)),
            ("DELETE", f"/api/api-keys/{key['id']}", None),
        ]
        for method, url, body in requests:
            for headers in ({}, {"If-Match": "*"}):
                answer = await client.request(method, url, json=body, headers=headers)
                assert answer.status_code == 404, url
                unknown = await client.request(method, url[:-1] + "9", json=body, headers=headers)
                assert unknown.json()["title"] == answer.json()["title"], "as one that does not exist"
        for url in ("/api/users/me", "/api/users/me/sessions", "/api/api-keys"):
            text = (await client.get(url)).text
            assert f"{other}@example.com" not in text
            assert key["hint"] not in text
            assert not [login for login in logins_of(other) if str(login) in text]
    assert await stored(onlooker) == before


def test_each_scope_is_asked_for_somewhere() -> None:
    """One that no route asks for would be given to a role, or to a key, for nothing."""
    asked = {scope for method, path in WHO for scope in required(method, path)} - {"public"}
    assert asked == {*DESCRIPTIONS} == ROLES[Role.ADMIN]
