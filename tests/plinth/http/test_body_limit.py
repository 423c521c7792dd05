import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from httpx import AsyncClient
from pydantic import BaseModel
from starlette.types import Message

from plinth.http.body_limit import BodyLimitMiddleware, body_limit
from plinth.testing.client import served
from tests.plinth.http.apps import JSON, build, client, http_scope, messages

GIBIBYTE = 1024**3


class Thing(BaseModel):
    name: str


def make_app() -> FastAPI:
    app = build(http={"max_body_bytes": 100})
    router = APIRouter(prefix="/inner")

    @app.post("/things")
    async def create(thing: Thing) -> int:
        return len(thing.name)

    @app.post("/raw")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.post("/unread")
    async def ignore() -> int:
        return 0

    @router.post("/large")
    @body_limit(1000)
    async def read_large(request: Request) -> int:
        return len(await request.body())

    @body_limit(10)
    @router.post("/small")
    async def read_small(request: Request) -> int:
        return len(await request.body())

    app.include_router(router)
    outer = APIRouter(prefix="/outer")
    outer.include_router(router)
    app.include_router(outer)
    return app


@pytest.fixture
async def asked() -> AsyncIterator[AsyncClient]:
    async with client(make_app()) as session:
        yield session


async def in_chunks(length: int) -> AsyncIterator[bytes]:
    for _ in range(length // 10):
        yield b"x" * 10


@pytest.mark.parametrize(
    ("path", "limit"), [("/raw", 100), ("/inner/large", 1000), ("/outer/inner/large", 1000), ("/inner/small", 10)]
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_up_to_the_limit_is_taken_and_a_longer_one_is_not(
    asked: AsyncClient, path: str, limit: int, chunked: bool
) -> None:
    taken = await asked.post(path, content=in_chunks(limit) if chunked else b"x" * limit)
    assert (taken.status_code, taken.json()) == (200, limit)
    refused = await asked.post(path, content=in_chunks(limit + 10) if chunked else b"x" * (limit + 1))
    assert refused.status_code == 413
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Connection"] == "close"
    assert refused.json()["detail"] == f"The body is larger than the {limit} bytes allowed here."


@pytest.mark.parametrize("chunked", [False, True])
async def test_json_over_the_limit_is_413_and_no_400(asked: AsyncClient, chunked: bool) -> None:
    answer = await asked.post("/things", content=in_chunks(200) if chunked else b"x" * 200, headers=JSON)
    assert answer.status_code == 413


async def test_a_body_that_nobody_reads_is_not_counted(asked: AsyncClient) -> None:
    assert (await asked.post("/unread", content=b"x" * 200)).status_code == 200


async def test_no_more_is_read_than_shows_that_it_is_too_long() -> None:
    received = 0

    async def endless() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 40, "more_body": True}

    start, _ = await messages(make_app(), http_scope("/raw", "POST"), endless)
    assert (start["status"], received) == (413, 3)


async def test_a_body_announced_too_long_is_not_read() -> None:
    async def unasked() -> Message:
        raise AssertionError

    scope = http_scope("/raw", "POST", host="test", content_length=str(GIBIBYTE))
    assert (await messages(make_app(), scope, unasked))[0]["status"] == 413


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
async def test_over_a_socket_a_gibibyte_is_refused_after_its_first_bytes(expect: str) -> None:
    async with served(make_app()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /things HTTP/1.1\r\nHost: test\r\n{expect}Content-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {GIBIBYTE}\r\n\r\n".encode() + b"abc")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert b"\r\nx-request-id: " in answer


async def test_over_a_socket_chunks_are_refused_once_they_are_too_many() -> None:
    async with served(make_app()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /raw HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            writer.write(b"a\r\n0123456789\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_what_is_not_http_passes() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(receive)

    receive = object()
    await BodyLimitMiddleware(app, 1)({"type": "websocket"}, receive, None)  # type: ignore[arg-type]
    assert seen == [receive]
