"""What our protocol writes is what Uvicorn's writes, whichever way it goes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from plinth.serving.protocol import Cycle, Protocol

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


class Clock:
    """A loop whose time passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.loop = asyncio.get_running_loop()
        self.create_task = self.loop.create_task
        self.timers: dict[asyncio.Handle, float] = {}

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.Handle:
        timer = asyncio.Handle(callback, (), self.loop)
        self.timers[timer] = self.now + seconds
        return timer

    def pending(self) -> list[asyncio.Handle]:
        return [timer for timer in self.timers if not timer.cancelled()]

    def go_on_until(self, now: float) -> None:
        while due := [timer for timer in self.pending() if self.timers[timer] <= now]:
            timer = min(due, key=lambda timer: self.timers[timer])
            self.now = self.timers.pop(timer)
            timer._run()
        self.now = now


@pytest.mark.parametrize("protocol", [Protocol, HttpToolsProtocol])
async def test_a_connection_is_closed_when_it_was_idle_for_long(protocol: type[HttpToolsProtocol]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = Config(app, log_config=None, lifespan="off", proxy_headers=False, timeout_keep_alive=5)
    config.load()
    clock, state, go_on = Clock(), ServerState(), asyncio.Event()
    kept, lost = (protocol(config, state, {}, clock) for _ in range(2))  # type: ignore[arg-type]
    sink = Sink()
    for connection in (kept, lost):
        connection.connection_made(sink)

    async def answer(connection: HttpToolsProtocol, at: float, until: float) -> None:
        clock.go_on_until(at)
        for piece in (b"GET / HT", b"TP/1.1\r\nHost: here\r\n\r\n"):
            connection.data_received(piece)
            clock.go_on_until((at + until) / 2)
            assert not sink.closed
        clock.go_on_until(until)
        go_on.set()
        await asyncio.gather(*state.tasks)
        go_on.clear()

    await answer(kept, 0, 0)
    await answer(kept, 3, 3)
    await answer(kept, 7.9, 100)
    await answer(kept, 102, 102)
    await answer(lost, 106.9, 106.9)
    lost.connection_lost(None)
    sink.closed = False
    assert len(clock.pending()) == 1
    clock.go_on_until(107)
    assert sink.closed
    assert not clock.pending()


async def test_the_usual_goes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes | None] = []
    find = Cycle._head

    def noting(cycle: Cycle, message: Any) -> bytes | None:
        heads.append(find(cycle, message))
        return heads[-1]

    monkeypatch.setattr(Cycle, "_head", noting)
    await exchange(Protocol, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", 200, [LENGTH, (b"a", b"b")], [(b"date", b"now")])
    assert heads == [b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\na: b\r\n\r\n"]
