"""Invalid input is answered by a clear 4xx problem and nothing is written, whichever endpoint it is sent to."""

import json
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Response

from app.main import app
from app.models import Base
from app.settings import Settings
from plinth.testing.resources import write_routes
from tests.app.resources import RESOURCES

JSON = {"Content-Type": "application/json"}


async def stored(onlooker: asyncpg.Connection) -> list[Any]:
    return [await onlooker.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in Base.metadata.tables]


def assert_clear(answer: Response, status: int, pointer: str | None = None) -> None:
    assert answer.status_code == status, f"{answer.request.method} {answer.request.url}: {answer.text}"
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"].endswith(".")
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    for leak in ("Traceback", "asyncpg", "sqlalchemy", "SELECT ", "INSERT "):
        assert leak not in answer.text
    if pointer is not None:
        assert pointer in [fault["pointer"] for fault in problem["errors"]]


def bodies() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, URL and body of each endpoint that takes an object."""
    requests = [(method, *RESOURCES.request(method, path, 1)) for method, path in write_routes(app)]
    return [(method, url, body) for method, url, body in requests if isinstance(body, dict)]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b"5", 422),
        (b'"text"', 422),
        (b"{", 400),
        (b"\xff\xfe\x00", 400),
        (b'{"a": "\xff"}', 400),
        (b'{"\\ud800": 1}', 422),
        (b'{"a": ' + b"9" * 5000 + b"}", 400),
        (b"[" * 100_000, 400),
    ],
)
async def test_a_body_that_is_no_object_is_refused(
    client: AsyncClient, onlooker: asyncpg.Connection, content: bytes, status: int
) -> None:
    await RESOURCES.create_all(client)
    before = await stored(onlooker)
    for method, url, _ in bodies():
        assert_clear(await client.request(method, url, content=content, headers=JSON), status)
    assert await stored(onlooker) == before


async def test_an_unknown_field_is_pointed_at(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    await RESOURCES.create_all(client)
    before = await stored(onlooker)
    for method, url, body in bodies():
        assert_clear(await client.request(method, url, json=body | {"no~such/field": 1}), 422, "#/no~0such~1field")
    assert await stored(onlooker) == before


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "nonsense"])
async def test_json_that_does_not_say_so_is_415(
    client: AsyncClient, onlooker: asyncpg.Connection, content_type: str
) -> None:
    await RESOURCES.create_all(client)
    before = await stored(onlooker)
    headers = {"Content-Type": content_type} if content_type else {}
    for method, url, body in bodies():
        answer = await client.request(method, url, content=json.dumps(body).encode(), headers=headers)
        assert_clear(answer, 415)
    assert await stored(onlooker) == before


async def test_a_body_over_the_limit_is_413(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    await RESOURCES.create_all(client)
    before = await stored(onlooker)
    for method, url, body in bodies():
        content = json.dumps(body).encode() + b" " * settings.http.max_body_bytes
        assert_clear(await client.request(method, url, content=content, headers=JSON), 413)
    assert await stored(onlooker) == before


@pytest.mark.parametrize("id", ["0", str(2**53), str(2**63), "9" * 5000])
async def test_an_id_that_cannot_be_is_refused(client: AsyncClient, id: str) -> None:
    for method, path in write_routes(app):
        if path.endswith("/{id}"):
            _, body = RESOURCES.request(method, path, 1)
            assert_clear(await client.request(method, path.format(id=id), json=body), 422, "#/id")


@pytest.mark.parametrize("path", ["/api/nothing", "/docs2", "/%00", "/health/live/", "/health/live/x"])
async def test_an_unknown_route_is_404(client: AsyncClient, path: str) -> None:
    assert_clear(await client.get(path), 404)


async def test_a_method_that_a_route_does_not_have_is_405(client: AsyncClient) -> None:
    answer = await client.delete("/health/ready")
    assert_clear(answer, 405)
    assert answer.headers["Allow"] == "GET, HEAD"
