"""What a client may send to the endpoints of accounts: nothing but their fields, and whatever text those hold."""

import json
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Response

from app.enums import Role
from app.main import app
from app.models import Base
from plinth.testing.client import Service
from plinth.testing.resources import Form, write_routes
from tests.app.accounts import PASSWORD, email_of
from tests.app.resources import RESOURCES

JSON = {"Content-Type": "application/json"}
PRIVILEGES: dict[str, Any] = {
    "id": 3,
    "user_id": 3,
    "role": "admin",
    "roles": ["admin"],
    "scopes": ["users:admin"],
    "scope": "users:admin",
    "is_active": True,
    "is_admin": True,
    "is_superuser": True,
    "verified": True,
    "is_verified": True,
    "verified_at": "2026-01-01T00:00:00Z",
    "created_at": "2026-01-01T00:00:00Z",
    "version": 9,
    "password_hash": "$argon2id$",
    "hash": "a",
    "hint": "a",
    "key": "key_",
    "expires_at": "2999-01-01T00:00:00Z",
    "__proto__": {"role": "admin"},
    "constructor": {},
    "Role": "admin",
    "role ": "admin",
    "user": {"role": "admin"},
}
TEXTS = {
    "nul": "a\0b",
    "high surrogate": "\ud800",
    "low surrogate": "a\udfff",
    "control": "a\x1b[2J\x07",
    "lines": "a\r\nb",
    "direction": "a\u202eb",
    "joined": "\u200b",
    "long": "a" * 100_000,
    "emoji": "🦊" * 128,
    "spaces": "   ",
    "null": None,
    "number": 2**63,
    "huge": 10**400,
    "list": ["a"],
    "object": {"$ne": ""},
    "true": True,
    "float": 1e308,
}
EMAILS = [
    *("a@b@c", "a", "@", "a@", "@b", "a b@example.com", " ada@example.com", "ada@example.com ", "ada@example.com\n"),
    *(
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com,eve@example.com",
        "<ada@example.com>",
        "a\0@example.com",
    ),
    *("ada@exämple.com", "ädа@example.com", "a" * 309 + "@example.com", "a@" + "b" * 64 + ".com", '"a b"@example.com'),
    *(
        "ada@example..com",
        "ada@-example.com",
        "ada@[127.0.0.1]",
        "ada@example.com\u200b",
        "ａｄａ@example.com",
        "ada＠example.com",
    ),
]


async def stored(onlooker: asyncpg.Connection) -> list[Any]:
    return [await onlooker.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in Base.metadata.tables]


def assert_clear(answer: Response) -> None:
    assert 400 <= answer.status_code < 500, f"{answer.request.url}: {answer.status_code} {answer.text}"
    assert answer.headers["Content-Type"] == "application/problem+json"
    for leak in ("Traceback", "asyncpg", "sqlalchemy", "SELECT ", "INSERT "):
        assert leak not in answer.text


def declared(document: dict[str, Any], method: str, path: str) -> set[str]:
    contents = document["paths"][path][method.lower()]["requestBody"]["content"]
    schema = contents.get("application/json", next(iter(contents.values())))["schema"]
    reference = schema.get("items", schema)["$ref"]  # of each item of a list
    return {*document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]}


WITH_BODY = [each for each in write_routes(app) if isinstance(RESOURCES.request(*each, 1)[1], Form | dict | list)]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_nothing_is_assigned_but_what_is_declared(
    client: AsyncClient, service: Service, onlooker: asyncpg.Connection, method: str, path: str
) -> None:
    await RESOURCES.create_all(client)
    url, body = RESOURCES.request(method, path, 1)
    fields = declared((await client.get("/openapi.json")).json(), method, path)
    before = await stored(onlooker)
    assert len(PRIVILEGES.keys() - fields) > 20
    for name in PRIVILEGES.keys() - fields:
        if isinstance(body, Form):
            answer = await client.request(method, url, data={**body.fields, name: str(PRIVILEGES[name])})
        elif isinstance(body, list):
            answer = await client.request(method, url, json=[{**body[0], name: PRIVILEGES[name]}])
        else:
            answer = await client.request(method, url, json={**body, name: PRIVILEGES[name]})
        assert answer.status_code == 422, f"{name}: {answer.text}"
        assert [fault["pointer"].rpartition("/")[2] for fault in answer.json()["errors"]] == [name.replace(" ", "%20")]
    assert await stored(onlooker) == before


@pytest.mark.parametrize("path", ["/api/auth/register", "/api/auth/login", "/api/auth/password/forgot"])
async def test_what_is_no_address_is_refused(anonymous: AsyncClient, onlooker: asyncpg.Connection, path: str) -> None:
    _, body = RESOURCES.request("POST", path, 1)
    before = await stored(onlooker)
    for email in EMAILS:
        answer = await anonymous.post(path, json={**body, "email": email})
        assert_clear(answer)
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["#/email"], email
    assert await stored(onlooker) == before
    assert await onlooker.fetchval("SELECT count(*) FROM plinth_jobs WHERE name = 'account_mail'") == 0


async def test_an_address_in_other_letters_is_the_same_account(
    anonymous: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    for email in ("USER@EXAMPLE.COM", "User@example.com"):
        answer = await anonymous.post("/api/auth/login", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 200
        taken = {"email": email, "password": "correct horse battery", "name": "Eve"}
        assert (await anonymous.post("/api/auth/register", json=taken)).status_code == 201
    for other in ("us.er@example.com", "user+1@example.com"):  # only its provider knows whether it is
        answer = await anonymous.post("/api/auth/login", json={"email": other, "password": PASSWORD})
        assert answer.status_code == 401
    assert await onlooker.fetchval("SELECT count(*) FROM users") == 3


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(("method", "path"), [each for each in WITH_BODY if "/auth/" in each[1] or "users" in each[1]])
async def test_any_text_is_accepted_or_refused_clearly(
    *, client: AsyncClient, onlooker: asyncpg.Connection, method: str, path: str, text: Any
) -> None:
    url, body = RESOURCES.request(method, path, 1)
    for field in body.fields if isinstance(body, Form) else body:
        await onlooker.execute("DELETE FROM plinth_login_attempts")
        content = json.dumps({**({} if isinstance(body, Form) else body), field: text})
        if isinstance(body, Form):
            value = str(text).encode("utf-8", "surrogatepass")
            sent = "&".join([f"{name}=a%40example.com" for name in body.fields if name != field]).encode()
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await client.post(url, content=sent + b"&%b=%b" % (field.encode(), value), headers=form)
        else:
            answer = await client.request(method, url, content=content, headers=JSON)
        if not answer.is_success:
            assert_clear(answer)


async def test_a_name_adds_no_paragraph_to_a_mail_to_others(
    client: AsyncClient, anonymous: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    before = await stored(onlooker)
    for character in ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\t"):
        name = f"Ada{character}You have won: https://example.org"
        account = {"email": "bob@example.org", "password": "correct horse battery", "name": name}
        for answer in (
            await anonymous.post("/api/auth/register", json=account),
            await client.patch("/api/users/me", json={"name": name}),
        ):
            assert answer.status_code == 422
            [fault] = answer.json()["errors"]
            assert fault["detail"] == "Text must be one line without control characters"
    assert await stored(onlooker) == before


@pytest.mark.parametrize("password", ["🦊🐢🐍🦀" * 32, "e\u0301" * 64, "é" * 128, "\ufdfa" * 128, "a b\tc\r\nd" * 5])
async def test_any_password_that_is_accepted_signs_in(anonymous: AsyncClient, password: str) -> None:
    account = {"email": "fox@example.com", "password": password, "name": "Fox"}
    registered = await anonymous.post("/api/auth/register", json=account)
    assert registered.status_code in {201, 422}, registered.text
    answer = await anonymous.post("/api/auth/login", json={"email": account["email"], "password": password})
    assert answer.status_code == (200 if registered.status_code == 201 else 401)
    for cut in (password[:-1], password[:72], password + " "):
        if cut != password:
            answer = await anonymous.post("/api/auth/login", json={"email": account["email"], "password": cut})
            assert answer.status_code in {401, 429}


async def test_of_a_member_that_is_sent_twice_the_last_is_meant_everywhere(anonymous: AsyncClient) -> None:
    """RFC 8259 §4 leaves it open; validation and use must mean the same one."""
    twice = b'{"email": "%b", "password": "%b", "password": "%b"}'
    for first, last, status in ((b"wrong", PASSWORD.encode(), 200), (PASSWORD.encode(), b"wrong", 401)):
        content = twice % (email_of(Role.USER).encode(), first, last)
        answer = await anonymous.post("/api/auth/login", content=content, headers=JSON)
        assert answer.status_code == status


@pytest.mark.parametrize(
    "id", ["0", "-1", "1.5", "9223372036854775807", "9223372036854775808", "9" * 400, "1e3", "٣", "1%00"]
)
@pytest.mark.parametrize("path", ["/api/users/{}", "/api/api-keys/{}", "/api/users/me/sessions/{}", "/api/jobs/{}"])
async def test_any_id_is_answered_clearly(client: AsyncClient, path: str, id: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        answer = await client.request(method, path.format(id), json={} if method == "PATCH" else None)
        assert answer.status_code in {404, 405, 422}, answer.text
        assert_clear(answer)
