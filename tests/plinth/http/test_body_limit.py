"""Body limits are FastAPI's `max_body_size`; a body that is too large is refused early, and always with a problem."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from httpx import AsyncClient, Response
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from plinth.testing.client import served
from tests.plinth.http.apps import JSON, build, client, http_scope, messages

GIBIBYTE = 1024**3


class Thing(BaseModel):
    name: str


async def read(request: Request) -> int:
    return len(await request.body())


def make_app() -> FastAPI:
    app = build(http={"max_body_bytes": 100})
    app.post("/raw")(read)

    @app.post("/things")
    async def create(thing: Thing) -> int:
        return len(thing.name)

    @app.post("/unread")
    async def ignore() -> int:
        return 0

    @app.post("/quota")
    async def refuse() -> None:
        raise HTTPException(413, "Your quota is used up.")

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)

    router = APIRouter(prefix="/inner")
    router.post("/large", max_body_size=1000)(read)
    router.post("/small", max_body_size=10)(read)
    app.include_router(router)
    outer = APIRouter(prefix="/outer", max_body_size=50)
    outer.include_router(router)
    outer.post("/default")(read)
    app.include_router(outer)
    app.mount("/mounted", mounted)
    return app


@pytest.fixture
async def limited() -> AsyncIterator[AsyncClient]:
    async with client(make_app()) as session:
        yield session


async def in_chunks(length: int) -> AsyncIterator[bytes]:
    for _ in range(length // 10):
        yield b"x" * 10


def assert_too_large(response: Response, limit: int) -> None:
    assert response.status_code == 413
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Connection"] == "close"
    problem = response.json()
    assert problem["type"] == "urn:problem-type:content-too-large"
    assert problem["detail"] == f"The request body is too large. At most {limit} bytes are allowed here."
    assert problem["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/raw", 100),
        ("/inner/large", 1000),
        ("/inner/small", 10),
        ("/outer/inner/large", 1000),
        ("/outer/inner/small", 10),
        ("/outer/default", 50),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_up_to_the_limit_is_accepted(limited: AsyncClient, path: str, limit: int, chunked: bool) -> None:
    accepted = await limited.post(path, content=in_chunks(limit) if chunked else b"x" * limit)
    assert (accepted.status_code, accepted.json()) == (200, limit)
    assert_too_large(await limited.post(path, content=in_chunks(limit + 10) if chunked else b"x" * (limit + 1)), limit)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/things", "/mounted/app"])
async def test_large_json_and_a_mounted_app_get_the_same_problem(
    limited: AsyncClient, path: str, chunked: bool
) -> None:
    content = in_chunks(200) if chunked else b"x" * 200
    assert_too_large(await limited.post(path, content=content, headers=JSON), 100)


@pytest.mark.parametrize("path", ["/unread", "/nothing"])
async def test_a_body_that_no_endpoint_reads_is_refused_by_its_content_length(limited: AsyncClient, path: str) -> None:
    assert_too_large(await limited.post(path, content=b"x" * 101), 100)
    assert (await limited.post(path, content=in_chunks(200))).status_code in {200, 404}


async def test_a_413_of_an_endpoint_keeps_its_sentence(limited: AsyncClient) -> None:
    response = await limited.post("/quota")
    assert (response.status_code, response.json()["detail"]) == (413, "Your quota is used up.")
    assert "Connection" not in response.headers


async def test_no_more_is_received_than_shows_that_it_is_too_large() -> None:
    received = 0

    async def endless() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 40, "more_body": True}

    start, _ = await messages(make_app(), http_scope("/raw", "POST"), endless)
    assert (start["status"], received) == (413, 3)


async def test_a_body_with_too_large_a_content_length_is_not_received() -> None:
    async def unexpected() -> Message:
        raise AssertionError

    scope = http_scope("/raw", "POST", host="test", content_length=str(GIBIBYTE))
    assert (await messages(make_app(), scope, unexpected))[0]["status"] == 413


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
async def test_over_a_socket_a_gibibyte_is_refused_after_its_first_bytes(expect: str) -> None:
    async with served(make_app()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /things HTTP/1.1\r\nHost: test\r\n{expect}Content-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {GIBIBYTE}\r\n\r\n".encode() + b"abc")
        response = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in response
    assert b"\r\nx-request-id: " in response


async def test_over_a_socket_chunks_are_refused_once_they_are_too_many() -> None:
    async with served(make_app()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /raw HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            writer.write(b"a\r\n0123456789\r\n")
        response = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert response.startswith(b"HTTP/1.1 413 ")
