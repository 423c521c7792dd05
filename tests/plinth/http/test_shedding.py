"""Load shedding as clients meet it: what is refused and how, what never is, and when a slot is free again."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from plinth.http import SheddingMiddleware, problem
from plinth.resilience import shedding
from plinth.telemetry import request_id
from tests.plinth.http.apps import http_scope, messages, no_body

pytestmark = pytest.mark.usefixtures("refuses_soon")


@pytest.fixture
def refuses_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "BURST_SECONDS", 0.0)
    monkeypatch.setattr(shedding, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(shedding, "FEWEST", 0)
    monkeypatch.setattr(shedding, "MOST", 1)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def shed(app: Any = answer, *, full: bool = True) -> SheddingMiddleware:
    middleware = SheddingMiddleware(
        app,
        queue_seconds=1e-6,
        is_cached=lambda scope: scope["path"] == "/cached",
        exempt=["/health/live"],
        exports=("/export",),
    )
    if full:
        middleware.limiter.in_flight = 1000
    return middleware


async def unread() -> Message:
    raise AssertionError("the body is not to be read")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_refusal_is_a_503_that_says_when_to_retry(method: str) -> None:
    start, body = await messages(shed(), http_scope("/", method, x_request_id="abc"), unread)
    token = request_id.set("abc")
    expected = problem(503, "The service is overloaded. Retry later.")
    request_id.reset(token)
    assert start["status"] == 503
    assert dict(start["headers"]) == {
        b"content-type": b"application/problem+json",
        b"content-length": b"%d" % len(expected.body),
        b"retry-after": b"1",
        b"x-request-id": b"abc",
    }
    assert body == {"type": "http.response.body", "body": b"" if method == "HEAD" else expected.body}


async def test_a_refusal_has_an_id_of_its_own_where_the_client_sends_none() -> None:
    start, body = await messages(shed(), http_scope("/", x_request_id='"'), unread)
    id = dict(start["headers"])[b"x-request-id"]
    assert len(id) == 16
    assert id in body["body"]


@pytest.mark.parametrize(("path", "method"), [("/health/live", "GET"), ("/cached", "GET"), ("/cached", "HEAD")])
async def test_probes_and_what_is_in_memory_are_never_refused(path: str, method: str) -> None:
    start, _ = await messages(shed(), http_scope(path, method), no_body)
    assert start["status"] == 204


async def test_a_write_to_a_cached_path_is_refused() -> None:
    start, _ = await messages(shed(), http_scope("/cached", "DELETE"), no_body)
    assert start["status"] == 503


async def test_a_websocket_takes_no_slot() -> None:
    reached = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    await shed(app)({"type": "websocket"}, no_body, unread)  # type: ignore[arg-type]
    assert reached == ["websocket"]


async def test_a_slot_is_free_once_the_response_has_started() -> None:
    taken = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        taken.append(middleware.limiter.in_flight)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        taken.append(middleware.limiter.in_flight)
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await send({"type": "http.response.body", "body": b"2"})

    middleware = shed(app, full=False)
    assert len(await messages(middleware, http_scope())) == 3
    assert taken == [1, 0]
    assert middleware.limiter.in_flight == 0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_request_that_fails_frees_its_slot(error: type[BaseException]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    middleware = shed(app, full=False)
    with pytest.raises(error):
        await messages(middleware, http_scope())
    assert middleware.limiter.in_flight == 0


async def test_writes_come_before_reads_and_exports_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "BURST_SECONDS", 3600.0)
    monkeypatch.setattr(shedding, "TICK_SECONDS", 3600.0)
    monkeypatch.setattr(shedding, "MOST", 1000)
    order = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        order.append((scope["method"], scope["path"]))
        await answer(scope, receive, send)

    middleware = shed(app, full=False)
    middleware.limiter.limit = 1.0
    assert middleware.limiter.try_enter()
    sent = [("GET", "/rows/export"), ("GET", "/rows"), ("OPTIONS", "/rows"), ("POST", "/rows/export")]
    waiting = [asyncio.create_task(messages(middleware, http_scope(path, method))) for method, path in sent]
    while middleware.limiter.waiting < len(sent):  # noqa: ASYNC110
        await asyncio.sleep(0)
    middleware.limiter.leave()
    await asyncio.gather(*waiting)
    assert order == [sent[3], sent[1], sent[2], sent[0]]


async def test_a_client_that_sends_its_body_slowly_holds_no_slot() -> None:
    arrives, waits = asyncio.Event(), asyncio.Event()

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while scope["method"] == "POST" and (await receive())["more_body"]:
            pass
        await answer(scope, receive, send)

    async def slowly() -> Message:
        if not waits.is_set():
            waits.set()
            return {"type": "http.request", "body": b"1", "more_body": True}
        await arrives.wait()
        return {"type": "http.request", "body": b"2", "more_body": False}

    middleware = shed(read, full=False)
    middleware.limiter.limit = 1
    slow = asyncio.ensure_future(messages(middleware, http_scope("/", "POST"), slowly))
    await waits.wait()
    await asyncio.sleep(0)
    start, _ = await messages(middleware, http_scope("/"), no_body)
    assert start["status"] == 204
    arrives.set()
    start, _ = await slow
    assert start["status"] == 204
    assert middleware.limiter.in_flight == 0
