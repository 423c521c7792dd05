"""The order of the middleware, observed in the responses of a whole app."""

import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from httpx import AsyncClient, Response

from tests.plinth.http.apps import build, client, fields, recorded

SHOP = "https://shop.example"
EVERYTHING: dict[str, Any] = {
    "http": {"max_body_bytes": 100, "gzip_minimum_bytes": 10},
    "cors": {"origins": f"{SHOP}, https://other.example"},
}


def make_app(**settings: Any) -> FastAPI:
    app = build(**settings)

    @app.get("/text")
    async def text() -> str:
        return "x" * 2000

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    return app


@pytest.fixture
async def shop() -> AsyncIterator[AsyncClient]:
    async with client(make_app(**EVERYTHING)) as session:
        session.headers["Origin"] = SHOP
        yield session


def assert_complete(response: Response) -> None:
    assert len(response.headers["X-Request-ID"]) == 16
    assert float(response.headers["X-Process-Time"]) > 0
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/text", b"", 200),
        ("GET", "/nothing", b"", 404),
        ("POST", "/text", b"", 405),
        ("POST", "/body", b"x" * 101, 413),
        ("GET", "/broken", b"", 500),
    ],
)
async def test_every_response_passes_through_every_middleware(
    shop: AsyncClient, method: str, path: str, content: bytes, status: int
) -> None:
    with recorded() as records:
        response = await shop.request(method, path, content=content)
    assert response.status_code == status
    assert_complete(response)
    assert response.headers["Access-Control-Allow-Origin"] == SHOP
    assert response.headers["Content-Encoding"] == "gzip"
    assert {value.strip() for value in response.headers["Vary"].split(",")} == {"Accept-Encoding", "Origin"}
    assert response.headers.get("Connection") == ("close" if status == 413 else None)
    [record] = records
    assert fields(record)["status"] == status
    assert fields(record)["bytes_sent"] == int(response.headers["Content-Length"])


async def test_a_preflight_carries_id_and_security_headers_and_is_logged(shop: AsyncClient) -> None:
    with recorded() as records:
        response = await shop.options(
            "/body",
            headers={
                "Access-Control-Request-Method": "PATCH",
                "Access-Control-Request-Headers": "authorization, content-type, idempotency-key, if-match",
            },
        )
    assert response.status_code == 200
    assert_complete(response)
    assert response.headers["Access-Control-Allow-Origin"] == SHOP
    assert len(records) == 1


async def test_a_browser_may_read_our_headers(shop: AsyncClient) -> None:
    exposed = (await shop.get("/text")).headers["Access-Control-Expose-Headers"]
    assert {"ETag", "Link", "Location", "Retry-After", "X-Request-ID"} <= set(exposed.split(", "))


async def test_an_origin_that_is_not_listed_is_not_allowed(shop: AsyncClient) -> None:
    response = await shop.get("/text", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(("allowed", "header"), [(True, "true"), (False, None)])
async def test_credentials_are_allowed_only_if_configured(allowed: bool, header: str | None) -> None:
    async with client(make_app(cors={"origins": SHOP, "credentials": allowed})) as session:
        response = await session.get("/text", headers={"Origin": SHOP})
    assert response.headers.get("Access-Control-Allow-Credentials") == header


async def test_without_origins_there_is_no_cors() -> None:
    async with client(make_app()) as session:
        response = await session.get("/text", headers={"Origin": SHOP})
    assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("level", [1, 9])
async def test_the_configured_level_is_used(level: int) -> None:
    app = make_app(http={"gzip_level": level})
    app.add_api_route("/numbers", lambda: list(range(2000)))
    async with client(app) as session:
        response = await session.get("/numbers")
    assert int(response.headers["Content-Length"]) == len(zlib.compress(response.content, level, 31))


async def test_level_0_compresses_nothing() -> None:
    async with client(make_app(http={"gzip_level": 0})) as session:
        response = await session.get("/text")
    assert "Content-Encoding" not in response.headers
    assert "Vary" not in response.headers


@pytest.mark.parametrize("path", ["/text", "/broken"])
async def test_http_is_redirected_before_anything_else(path: str) -> None:
    async with client(make_app(http={"redirect_https": True})) as session:
        response = await session.get(f"{path}?a=1")
        secure = await session.get("https://test/text")
    assert (response.status_code, response.headers["Location"]) == (308, f"https://test{path}?a=1")
    assert_complete(response)
    assert "Strict-Transport-Security" not in response.headers
    assert (secure.status_code, secure.headers["Strict-Transport-Security"]) == (200, "max-age=31536000")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_probes_are_not_redirected(path: str) -> None:
    async with client(make_app(http={"redirect_https": True})) as session:
        assert (await session.get(path)).status_code == 404
