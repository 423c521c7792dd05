"""Streams and files under GET, HEAD, preconditions and Range: they end quietly, and nothing is logged as an error."""

import logging
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from httpx import AsyncClient

from plinth.http import add_docs
from plinth.testing.client import served
from tests.plinth.http.apps import build

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
