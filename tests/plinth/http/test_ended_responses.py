"""Streams and files under GET, HEAD, preconditions and Range: they end quietly, and nothing is logged as an error."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from itertools import count, product, repeat
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from httpx import AsyncClient
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http import ConditionalMiddleware, HeadMiddleware, add_docs
from plinth.testing.client import served
from tests.plinth.http.apps import build, http_scope, messages, no_body

PATHS = ["/stream", "/sync-stream", "/jsonl", "/file", "/static/large.txt", "/plain", "/docs", "/own-head"]
METHODS = ["GET", "HEAD"]
CONDITIONS: list[dict[str, str]] = [
    {},
    {"If-None-Match": "*"},
    {"If-None-Match": '"none"'},
    {"If-Match": '"none"'},
    {"If-Match": "*"},
    {"If-Modified-Since": "Fri, 31 Dec 2060 23:59:59 GMT"},
    {"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    {"If-Modified-Since": "Fri, 31 Dec 2060 23:59:59 +99999999999999"},
    {"Range": "bytes=0-9"},
    {"Range": "bytes=0-9", "If-None-Match": "*"},
    {"Range": "bytes=0-9", "If-Range": '"none"'},
    {"Range": "bytes=999999999-"},
]
ENCODINGS = ["identity", "gzip"]


def make_app(folder: Path) -> FastAPI:
    app = build()
    file = folder / "large.txt"
    file.write_bytes(b"0123456789" * 20_000)  # several chunks
    validators = {"ETag": '"a"', "Last-Modified": "Sat, 21 Nov 2026 08:05:06 GMT"}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def rows() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"row" * 1000

        return StreamingResponse(rows(), headers=validators, media_type="text/plain")

    @app.get("/sync-stream")
    def sync_stream() -> StreamingResponse:
        def rows() -> Iterator[bytes]:
            for _ in range(5):
                yield b"row" * 1000

        return StreamingResponse(rows(), headers=validators)

    @app.get("/jsonl")
    async def json_lines(response: Response) -> AsyncIterator[int]:
        response.headers.update(validators)
        for number in range(5):
            yield number

    @app.get("/file")
    async def send_file() -> FileResponse:
        return FileResponse(file)

    @app.get("/plain")
    async def plain() -> list[int]:
        return [1]

    @app.head("/own-head")
    async def own_head() -> Response:
        return Response(headers={**validators, "X-Own": "1"})

    @app.get("/own-head")
    async def own_get() -> Response:
        return Response(b"body", headers=validators)

    add_docs(app)
    app.mount("/static", StaticFiles(directory=folder))
    return app


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_nothing_is_logged_as_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str) -> None:
    async with served(make_app(tmp_path)) as port, AsyncClient(base_url=f"http://127.0.0.1:{port}") as session:
        for path, method, condition in product(PATHS, METHODS, CONDITIONS):
            response = await session.request(method, path, headers={"Accept-Encoding": encoding, **condition})
            case = path, method, condition, response.status_code
            assert response.status_code in {200, 206, 304, 412, 416}, case
            assert not (method == "HEAD" or response.status_code == 304) or not response.content, case
            if response.status_code == 206:
                assert response.headers.get("Content-Encoding") is None, case
                assert method == "HEAD" or response.content == b"0123456789", case
            if {"ETag", "Last-Modified"} & {*map(str.title, response.headers)} and "max-age" not in str(
                response.headers
            ):
                assert "no-cache" in response.headers["Cache-Control"], case
            if path == "/own-head" and method == "HEAD" and response.status_code == 200:
                assert response.headers["X-Own"] == "1"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_head_is_get_without_a_body_whatever_is_mounted_at_the_end(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    app.mount("/", StaticFiles(directory=tmp_path))
    async with served(app) as port, AsyncClient(base_url=f"http://127.0.0.1:{port}") as session:
        for path in [*PATHS, "/large.txt"]:
            assert (await session.head(path)).status_code == 200, path


@pytest.mark.parametrize("kind", ["async", "sync", "lines"])
@pytest.mark.parametrize(("status", "headers"), [(200, {}), (304, {"if_none_match": "*"}), (412, {"if_match": '"b"'})])
async def test_no_more_of_a_stream_is_made_than_is_sent(kind: str, status: int, headers: dict[str, str]) -> None:
    """Of a stream without an end, for a client that waits: only the app can end it."""
    app = build()

    @app.get("/async")
    async def stream() -> StreamingResponse:
        async def rows() -> AsyncIterator[bytes]:
            while True:
                yield b"row"
                await asyncio.sleep(0)

        return StreamingResponse(rows(), headers={"ETag": '"a"'})

    @app.get("/sync")
    def sync_stream() -> StreamingResponse:
        return StreamingResponse(repeat(b"row"), headers={"ETag": '"a"'})

    @app.get("/lines")
    async def lines(response: Response) -> AsyncIterator[int]:
        response.headers["ETag"] = '"a"'
        for number in count():
            yield number
            await asyncio.sleep(0)

    bodies = iter([await no_body()])

    async def receive() -> Message:
        return next(bodies, None) or await asyncio.get_running_loop().create_future()

    for method in METHODS if headers else ["HEAD"]:
        async with asyncio.timeout(10):
            start, *sent = await messages(app, http_scope(f"/{kind}", method, **headers), receive)
        assert start["status"] == status, method
        assert [message.get("more_body", False) for message in sent] == [False]


async def stream_by_itself(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"row", "more_body": True})
        await asyncio.sleep(0)


async def stream_in_a_task_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(stream_by_itself(scope, receive, send))


async def stream_and_raise_another_error(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await stream_by_itself(scope, receive, send)
    except OSError as error:
        raise ClientDisconnect from error


async def stream_by_starlette(scope: Scope, receive: Receive, send: Send) -> None:
    await StreamingResponse(repeat(b"row"))(scope, receive, send)


STREAMS = [stream_by_itself, stream_in_a_task_group, stream_and_raise_another_error, stream_by_starlette]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("version", ["2.3", "2.4"])  # with which Starlette streams in another way
@pytest.mark.parametrize(
    ("middleware", "method"),
    [(HeadMiddleware, "HEAD"), (ConditionalMiddleware, "HEAD"), (ConditionalMiddleware, "GET")],
)
async def test_an_ended_stream_raises_nothing(middleware: Any, method: str, stream: ASGIApp, version: str) -> None:
    scope = {**http_scope("/", method, if_none_match="*"), "asgi": {"spec_version": version}}
    waiting = asyncio.Event()

    async def receive() -> Message:
        await waiting.wait()
        raise AssertionError

    # In a task of its own, as in a server: before Python 3.13 a task group whose child fails leaves a request to cancel
    # to its task, and on 3.11.2 no timeout works there afterwards.
    async with asyncio.timeout(10):
        start, body = await asyncio.create_task(messages(middleware(stream), scope, receive))
    assert start["status"] == (200 if middleware is HeadMiddleware else 304)
    assert not body.get("more_body")


async def test_an_error_of_a_stream_is_still_raised(caplog: pytest.LogCaptureFixture) -> None:
    app = build()

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def rows() -> AsyncIterator[bytes]:
            yield b"row"
            raise ZeroDivisionError

        return StreamingResponse(rows())

    async with served(app) as port, AsyncClient(base_url=f"http://127.0.0.1:{port}") as session:
        with pytest.raises(Exception, match=r"incomplete|peer closed"):
            await session.get("/broken", headers={"If-None-Match": '"x"'})
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "image/svg+xml", "application/xhtml+xml"])
async def test_a_document_may_show_what_it_contains(kind: str) -> None:
    app = build()

    @app.get("/page")
    async def page() -> Response:
        return Response("<h1 style='color: red'>Hello</h1>", media_type=kind)

    @app.get("/data")
    async def data() -> Any:
        return {}

    async with served(app) as port, AsyncClient(base_url=f"http://127.0.0.1:{port}") as session:
        policies = [(await session.get(path)).headers["Content-Security-Policy"] for path in ("/page", "/data")]
        unchanged = await session.get("/page", headers={"If-None-Match": "*"})
    assert "default-src" not in policies[0]
    assert "frame-ancestors 'none'" in policies[0]
    assert policies[1].startswith("default-src 'none'")
    assert (unchanged.status_code, unchanged.headers.get("Content-Security-Policy")) == (304, None)
