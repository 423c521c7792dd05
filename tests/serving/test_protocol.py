"""What our protocol writes is what Uvicorn's writes, whichever way it goes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.serving.protocol import Cycle, Protocol

LENGTH = (b"content-length", b"2")
Headers = list[tuple[bytes, bytes]]


class Sink(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5000), "sockname": ("127.0.0.1", 8000)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def exchange(
    protocol: Callable[..., HttpToolsProtocol], request: bytes, status: int, headers: Headers, common: Headers
) -> tuple[bytes, bool, list[Any]]:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append({name: scope[name] for name in ("method", "path", "raw_path", "query_string", "http_version")})
        seen.append(await receive())
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if status in {204, 304} else b"ok"})

    config = Config(app, log_config=None, lifespan="off", proxy_headers=False, root_path="/root")
    config.load()
    state, sink = ServerState(), Sink()
    state.default_headers = common
    connection = protocol(config, state, {})
    connection.connection_made(sink)
    connection.data_received(request)
    while state.tasks:
        await asyncio.gather(*state.tasks)
        await asyncio.sleep(0)
    return sink.written, sink.closed, seen


@pytest.mark.parametrize("common", [[(b"date", b"now")], [(b"date", b"now"), (b"connection", b"close")], []])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, [(b"content-type", b"text/plain"), LENGTH]),
        (200, [LENGTH, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=\t2")]),
        (200, []),
        (200, [(b"x-a", b"no length")]),
        (200, [LENGTH, (b"connection", b"close")]),
        (200, [(b"transfer-encoding", b"chunked")]),
        (200, [(b"Content-Length", b"2")]),
        (200, [LENGTH, (b"x y", b"a bad name")]),
        (200, [LENGTH, (b"", b"no name")]),
        (200, [LENGTH, (b"x-a", b"b\r\nx-c: d")]),
        (200, [LENGTH, (b"x-a", b"\x00")]),
        (200, [LENGTH, (b"x-a", "é".encode())]),
        (200, [(b"content-length", b"3")]),
        (200, [(b"content-length", b"1")]),
        (204, [(b"x-a", b"b")]),
        (304, [(b"etag", b'"a"')]),
        (404, [LENGTH]),
    ],
)
@pytest.mark.parametrize(
    "request_sent",
    [
        b"GET /a%20b?c=%20d HTTP/1.1\r\nHost: here\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /1 HTTP/1.1\r\nHost: here\r\n\r\nGET /2 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
    ],
)
async def test_both_write_the_same(
    caplog: pytest.LogCaptureFixture, request_sent: bytes, status: int, headers: Headers, common: Headers
) -> None:
    caplog.set_level(logging.CRITICAL)
    ours = await exchange(Protocol, request_sent, status, headers, common)
    assert ours == await exchange(HttpToolsProtocol, request_sent, status, headers, common)


@pytest.mark.parametrize("protocol", [Protocol, HttpToolsProtocol])
async def test_a_client_that_reads_slowly_gets_the_head_too(protocol: type[HttpToolsProtocol]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        connection.pause_writing()
        asyncio.get_running_loop().call_soon(connection.resume_writing)
        await send({"type": "http.response.body", "body": b"ok"})

    config = Config(app, log_config=None, lifespan="off", proxy_headers=False)
    config.load()
    state, sink = ServerState(), Sink()
    connection = protocol(config, state, {})
    connection.connection_made(sink)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    await asyncio.gather(*state.tasks)
    assert sink.written == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_the_usual_goes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes | None] = []
    find = Cycle._head

    def noting(cycle: Cycle, message: Any) -> bytes | None:
        heads.append(find(cycle, message))
        return heads[-1]

    monkeypatch.setattr(Cycle, "_head", noting)
    await exchange(Protocol, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", 200, [LENGTH], [(b"date", b"now")])
    assert heads == [b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\n"]
