"""Who may call what: every route says so, and each kind of caller is answered as this table says."""

from time import time
from typing import Any

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx import AsyncClient, Response
from jwt.algorithms import OKPAlgorithm

from app.enums import Role
from app.main import create_app
from app.models import Base
from app.routers import DOCS_ROUTERS, ROUTERS
from app.scopes import AUDIT_READ, CONTENT_WRITE, ROLES, USERS_ADMIN
from app.settings import Settings
from plinth.http.dependants import plan_for
from plinth.security.principals import accesses
from plinth.testing.client import Service, serve, served
from plinth.testing.resources import send
from tests.app.accounts import add_accounts, headers_of, logins_of
from tests.app.resources import JOB, RESOURCES
from tests.app.test_labels import routes

PUBLIC, PRINCIPALS, PEOPLE = "public", "anyone with a credential", "who has signed in"
EDITORS, ADMINISTRATORS = "editors", "administrators"
KEY = "api key"
REVOKED = "revoked session"
ALLOWED: dict[str, set[str]] = {
    PUBLIC: {"anonymous", REVOKED, KEY, *Role},
    PRINCIPALS: {KEY, *Role},
    PEOPLE: {*Role},
    EDITORS: {Role.EDITOR, Role.ADMIN},
    ADMINISTRATORS: {Role.ADMIN},
}
CALLERS = ["anonymous", REVOKED, KEY, *Role]
UNAUTHENTICATED = {"anonymous", REVOKED}

# A new endpoint is added here, or a test fails.
WHO: dict[tuple[str, str], str] = {
    ("GET", "/api/products"): PUBLIC,
    ("GET", "/api/products/search"): PUBLIC,
    ("GET", "/api/products/facets"): PUBLIC,
    ("GET", "/api/products/export"): PRINCIPALS,
    ("GET", "/api/products/{id}"): PUBLIC,
    ("POST", "/api/products"): EDITORS,
    ("PUT", "/api/products/{id}"): EDITORS,
    ("PATCH", "/api/products/{id}"): EDITORS,
    ("DELETE", "/api/products/{id}"): EDITORS,
    ("POST", "/api/products/bulk"): EDITORS,
    ("GET", "/api/imports/{id}"): EDITORS,
    ("GET", "/api/products/{id}/image"): PUBLIC,
    ("PUT", "/api/products/{id}/image"): EDITORS,
    ("DELETE", "/api/products/{id}/image"): EDITORS,
    ("GET", "/api/categories"): PUBLIC,
    ("GET", "/api/categories/{id}"): PUBLIC,
    ("POST", "/api/categories"): EDITORS,
    ("PUT", "/api/categories/{id}"): EDITORS,
    ("PATCH", "/api/categories/{id}"): EDITORS,
    ("DELETE", "/api/categories/{id}"): EDITORS,
    ("POST", "/api/auth/register"): PUBLIC,
    ("POST", "/api/auth/login"): PUBLIC,
    ("POST", "/api/auth/token"): PUBLIC,
    ("POST", "/api/auth/refresh"): PUBLIC,
    ("POST", "/api/auth/logout"): PEOPLE,
    ("POST", "/api/auth/verify-email"): PUBLIC,
    ("POST", "/api/auth/password/forgot"): PUBLIC,
    ("POST", "/api/auth/password/reset"): PUBLIC,
    ("POST", "/api/auth/password/change"): PEOPLE,
    ("GET", "/api/auth/jwks"): PUBLIC,
    ("GET", "/api/users/me"): PEOPLE,
    ("PATCH", "/api/users/me"): PEOPLE,
    ("DELETE", "/api/users/me"): PEOPLE,
    ("GET", "/api/users/me/sessions"): PEOPLE,
    ("DELETE", "/api/users/me/sessions/{id}"): PEOPLE,
    ("GET", "/api/users"): ADMINISTRATORS,
    ("GET", "/api/users/{id}"): ADMINISTRATORS,
    ("PATCH", "/api/users/{id}"): ADMINISTRATORS,
    ("GET", "/api/api-keys"): PEOPLE,
    ("POST", "/api/api-keys"): PEOPLE,
    ("DELETE", "/api/api-keys/{id}"): PEOPLE,
    ("GET", "/api/audit"): ADMINISTRATORS,
    ("GET", "/api/dashboard"): PEOPLE,
    ("GET", "/api/orders"): PEOPLE,
    ("GET", "/api/orders/events"): PEOPLE,
    ("GET", "/api/orders/{id}"): PEOPLE,
    ("POST", "/api/orders"): PEOPLE,
    ("POST", "/api/orders/{id}/cancel"): PEOPLE,
    ("POST", "/api/orders/{id}/ship"): ADMINISTRATORS,
    ("GET", "/api/reports/prices"): PUBLIC,
    ("POST", "/api/reports/prices"): EDITORS,
    ("GET", "/api/jobs/{id}"): PRINCIPALS,
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
}
# What these name is an administrator's, and does not exist for anyone else.
OF_THE_ADMINISTRATOR = {
    ("DELETE", "/api/users/me/sessions/{id}"),
    ("DELETE", "/api/api-keys/{id}"),
    ("GET", "/api/orders/{id}"),
    ("POST", "/api/orders/{id}/cancel"),
    ("GET", "/api/jobs/{id}"),
}


def test_every_endpoint_is_in_the_table() -> None:
    found = {
        (method, route.path_format)
        for route in routes()
        if isinstance(route.original_route, APIRoute)
        for method in route.methods
    }
    assert found == {*WHO}


def test_a_public_route_asks_for_no_credential_and_no_other_lacks_a_check() -> None:
    for route in routes():
        if isinstance(route.original_route, APIRoute):
            [method] = route.methods
            labels = {*accesses(route)}
            assert ("public" in labels) == (WHO[method, route.path_format] == PUBLIC), route.path
            assert labels == {"public"} or "public" not in labels, route.path


def test_authenticated_endpoints_are_on_the_fast_path() -> None:
    plans = {route.path_format: plan_for(route) for router in (*ROUTERS, *DOCS_ROUTERS) for route in router.routes}  # type: ignore[attr-defined, arg-type]
    slow = {path for path, plan in plans.items() if plan is None}
    slow.remove("/api/orders/events")  # a stream
    assert slow == {"/api/auth/token"}, "FastAPI resolves their dependencies on each request"  # a form


@pytest.mark.parametrize(("method", "path"), WHO)
async def test_each_caller_is_answered_as_the_table_says(
    *, client: AsyncClient, service: Service, settings: Settings, onlooker: asyncpg.Connection, method: str, path: str
) -> None:
    await RESOURCES.create_all(client)
    key = (await client.post("/api/api-keys", json={"name": "No scope"})).json()["key"]
    gone = logins_of(Role.ADMIN)[2]
    headers: dict[str, dict[str, str]] = {
        "anonymous": {},
        REVOKED: headers_of(settings, Role.ADMIN, gone),
        KEY: {"Authorization": f"Bearer {key}"},
        **{role: headers_of(settings, role) for role in Role},
    }
    assert (await client.delete(f"/api/users/me/sessions/{gone}")).status_code == 204
    allowed = ALLOWED[WHO[method, path]]
    number = 0
    for caller in sorted(CALLERS, key=allowed.__contains__):  # those who may not change anything first
        number += caller in allowed
        url, body = (RESOURCES.urls(path)[0], None) if method == "GET" else RESOURCES.request(method, path, number or 1)
        before = await stored(onlooker)
        async with service.client(headers[caller]) as own:
            answer = await send(own, method, url, body)
        expected = caller in allowed
        if not expected:
            assert await stored(onlooker) == before
            assert_refused(answer, 401 if caller in UNAUTHENTICATED else 403)
        elif (method, path) in OF_THE_ADMINISTRATOR and caller not in {Role.ADMIN, KEY}:  # an administrator's key
            assert await stored(onlooker) == before
            assert_refused(answer, 404)
        else:
            assert answer.is_success, f"{caller}: {answer.text}"
        await restore(onlooker, path)


async def stored(onlooker: asyncpg.Connection) -> list[Any]:
    return [await onlooker.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in Base.metadata.tables]


async def restore(onlooker: asyncpg.Connection, path: str) -> None:
    """Some calls end a session, use up a token, or delete an account."""
    if path.startswith(("/api/auth/", "/api/users/")):
        keys = await onlooker.fetch("SELECT * FROM api_keys")
        await add_accounts(onlooker)
        await onlooker.execute("DELETE FROM logins WHERE id = $1", logins_of(Role.ADMIN)[2])
        for key in keys:
            values = ", ".join(f"${number}" for number in range(1, len(key) + 1))
            insert = f"INSERT INTO api_keys ({', '.join(key.keys())}) OVERRIDING SYSTEM VALUE VALUES ({values})"
            await onlooker.execute(f"{insert} ON CONFLICT DO NOTHING", *key.values())


def assert_refused(answer: Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json().keys() == {"type", "title", "status", "detail", "request_id"}
    assert "example.com" not in answer.text
    if status != 404:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_who_may_not_write_does_not_learn_what_exists(
    client: AsyncClient, service: Service, settings: Settings, method: str
) -> None:
    await RESOURCES.create_all(client)
    async with service.client(headers_of(settings, Role.USER)) as user:
        statuses = {(await user.request(method, f"/api/users/{id}", json={})).status_code for id in (1, 2, 999)}
    assert statuses <= {403, 405}


async def test_a_token_of_the_trusted_issuer_has_the_trusted_scopes(settings: Settings, accounts: None) -> None:
    key = Ed25519PrivateKey.generate()
    jwk = {**OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "theirs", "alg": "EdDSA", "use": "sig"}
    provider = FastAPI()
    async with served(provider) as port:
        issuer = f"http://127.0.0.1:{port}"

        @provider.get("/.well-known/openid-configuration")
        async def configuration() -> dict[str, str]:
            return {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}

        @provider.get("/keys")
        async def keys() -> dict[str, list[dict[str, str]]]:
            return {"keys": [jwk]}

        now = int(time())
        claims = {"iss": issuer, "aud": settings.app.identifier, "sub": "3", "iat": now, "nbf": now, "exp": now + 60}
        claims["scope"] = f"{USERS_ADMIN} {CONTENT_WRITE}"
        token = jwt.encode(claims, key, "EdDSA", headers={"kid": "theirs"})
        forged = jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": "theirs"})
        for trusted, status, job in (
            ("", 403, 404),
            (f"{CONTENT_WRITE}, {AUDIT_READ}", 403, 404),
            (f"{CONTENT_WRITE}, {USERS_ADMIN}, {AUDIT_READ}", 200, 200),
        ):
            auth = settings.auth.model_copy(update={"trusted_issuer": issuer, "trusted_scopes": trusted})
            app = create_app(settings.model_copy(update={"auth": auth}))
            async with serve(app) as service, service.client({"Authorization": f"Bearer {token}"}) as client:
                assert (await client.get("/api/users")).status_code == status
                assert (await client.get("/api/users/me")).status_code == 403  # it has no account here
                assert (await client.get(f"/api/jobs/{JOB}")).status_code == job
                assert (await client.get("/api/audit")).status_code == 403  # trusted, and not in the token
                client.headers["Authorization"] = f"Bearer {forged}"
                assert (await client.get(f"/api/jobs/{JOB}")).status_code == 401


def test_each_role_may_do_what_those_below_it_may() -> None:
    assert ROLES[Role.USER] <= ROLES[Role.EDITOR] <= ROLES[Role.ADMIN]
    assert ROLES[Role.USER] == set()


async def test_the_document_shows_who_may_call_what(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    flow = scheme["flows"]["password"]
    assert (flow["tokenUrl"], {*flow["scopes"]}) == ("api/auth/token", {*ROLES[Role.ADMIN]})
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            who = WHO[method.upper(), path]
            required = [scope for each in operation.get("security", []) for scope in each[name]]
            assert bool(operation.get("security")) == (who != PUBLIC), path
            assert bool(required) == (who in {EDITORS, ADMINISTRATORS}), path
            assert {"401", "403"} <= operation["responses"].keys() or who == PUBLIC
