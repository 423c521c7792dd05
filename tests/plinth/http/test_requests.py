"""Request ids, access log lines, HEAD, and query strings that are not UTF-8."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from math import inf

import httpx
import pytest
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from plinth.http import RequestContextMiddleware
from plinth.telemetry.context import request_id
from plinth.telemetry.logs import JSONFormatter, TextFormatter
from plinth.testing.client import served
from tests.plinth.http.apps import answering, build, client, fields, http_scope, messages, recorded


def headers(start: Message) -> dict[bytes, bytes]:
    return dict(start["headers"])


async def response_id(sent: bytes | None) -> str:
    scope = http_scope()
    if sent is not None:
        scope["headers"] = [(b"host", b"test"), (b"x-request-id", sent)]
    start, _ = await messages(RequestContextMiddleware(answering(b"")), scope)
    return headers(start)[b"x-request-id"].decode()


@example(id="x" * 128)
@given(id=st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True))
async def test_a_well_formed_id_is_kept(id: str) -> None:
    assert await response_id(id.encode()) == id


@given(sent=st.binary().filter(lambda sent: not re.fullmatch(rb"[A-Za-z0-9._-]{1,128}", sent)))
async def test_any_other_id_is_replaced(sent: bytes) -> None:
    assert re.fullmatch("[0-9a-f]{16}", await response_id(sent))


@pytest.mark.parametrize("sent", [b"a\n", b"a b", b"x" * 129, b"", "é".encode(), b'a"b'])
async def test_an_id_that_could_inject_text_is_replaced(sent: bytes) -> None:
    assert re.fullmatch("[0-9a-f]{16}", await response_id(sent))


async def test_each_request_without_an_id_gets_its_own() -> None:
    assert len({await response_id(None) for _ in range(100)}) == 100


async def test_the_id_is_set_in_tasks_and_threads_of_the_request_only() -> None:
    seen: list[str | None] = []
    token = request_id.set("another")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(request_id.get())
        await asyncio.create_task(asyncio.to_thread(lambda: seen.append(request_id.get())))
        await answering(b"")(scope, receive, send)

    await messages(RequestContextMiddleware(app), http_scope(x_request_id="abc"))
    assert seen == ["abc", "abc"]
    assert request_id.get() == "another"
    request_id.reset(token)


@pytest.fixture
def slow_app(monkeypatch: pytest.MonkeyPatch) -> RequestContextMiddleware:
    """An app that starts its response after 5 seconds, completes it after 2 more, and then works for another 100."""
    now = 1000.0
    monkeypatch.setattr("plinth.http.access.perf_counter", lambda: now)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal now
        now += 5
        await send({"type": "http.response.start", "status": 201})
        for body in (b"abc", b"de"):
            now += 1
            await send({"type": "http.response.body", "body": body, "more_body": body == b"abc"})
        now += 100

    return RequestContextMiddleware(app)


async def test_the_process_time_ends_when_the_response_starts(slow_app: RequestContextMiddleware) -> None:
    start, *_ = await messages(slow_app, http_scope())
    assert headers(start)[b"x-process-time"] == b"5.000000"


async def test_a_response_that_is_sent_twice_is_not_changed() -> None:
    kept = [(b"x-own", b"1")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": kept})

    await messages(RequestContextMiddleware(app), http_scope())
    assert kept == [(b"x-own", b"1")]


async def test_a_request_is_logged_in_one_line(slow_app: RequestContextMiddleware) -> None:
    scope = http_scope("/things", "POST") | {"client": ("192.0.2.1", 50000), "query_string": b"token=secret"}
    with recorded() as records:
        await messages(slow_app, scope)
    [record] = records
    assert (record.name, record.levelname, record.getMessage()) == ("app.access", "INFO", "POST /things 201")
    assert fields(record) == {
        "method": "POST",
        "path": "/things",
        "status": 201,
        "duration_ms": 7000.0,
        "bytes_sent": 5,
        "client": "192.0.2.1",
        "route": None,
        "user": None,
        "cache": None,
        "queries": 0,
        "database_ms": 0.0,
    }


async def test_an_unknown_client_is_logged_as_null() -> None:
    with recorded() as records:
        await messages(RequestContextMiddleware(answering(b"")), http_scope() | {"client": None})
    assert fields(records[0])["client"] is None


async def test_only_probes_are_not_logged() -> None:
    with recorded() as records:
        async with client(build()) as session:
            for path in ("/health/live", "/health/ready", "/health", "/health/ready/"):
                await session.get(path)
    assert [fields(record)["path"] for record in records] == ["/health", "/health/ready/"]


async def test_no_line_is_logged_above_info() -> None:
    with recorded() as records:
        logging.getLogger("app.access").setLevel(logging.WARNING)
        await messages(RequestContextMiddleware(answering(b"")), http_scope())
    assert records == []


@pytest.mark.parametrize("formatter", [JSONFormatter(), TextFormatter()])
@example(path="\ud83d\r\n\x1b\x85\u2028\u202e")
@given(path=st.text(st.characters(exclude_categories=())))
async def test_a_path_cannot_break_a_line(formatter: logging.Formatter, path: str) -> None:
    with recorded(formatter=formatter) as records:
        await messages(RequestContextMiddleware(answering(b"")), http_scope("/" + path))
    [record] = records
    assert vars(record)["text"].isprintable()


async def test_an_error_is_logged_and_keeps_the_id_for_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def id_after_error() -> str | None:
        with pytest.raises(ZeroDivisionError):
            await messages(RequestContextMiddleware(app), http_scope(x_request_id="abc"))
        return request_id.get()

    with recorded() as records:
        assert await asyncio.create_task(id_after_error()) == "abc"
    assert fields(records[0])["status"] == 500


async def test_over_a_socket_a_broken_stream_is_cut_off_and_logged_once_with_its_id() -> None:
    app = build()

    @app.get("/late")
    async def late() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            raise ZeroDivisionError

        return StreamingResponse(chunks())

    with recorded("", JSONFormatter()) as records:
        async with served(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /late HTTP/1.1\r\nHost: test\r\nX-Request-ID: abc\r\n\r\n")
            response = await asyncio.wait_for(reader.read(), 5)
            writer.close()
    assert response.endswith(b"\r\n\r\n3\r\none\r\n")
    [line] = [json.loads(vars(record)["text"]) for record in records if record.levelno >= logging.ERROR]
    assert line["request_id"] == "abc"
    assert "ZeroDivisionError" in line["exception"]


@pytest.mark.parametrize("path", ["/small", "/large", "/stream", "/endless", "/nothing"])
async def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    app = build()

    async def rows(count: float = inf) -> AsyncIterator[bytes]:
        while (count := count - 1) > 0:
            yield b'{"row": 1}\n'
            await asyncio.sleep(0)

    @app.get("/small")
    async def small(request: Request) -> dict[str, str]:
        return {"method": request.method}

    @app.get("/large")
    async def large() -> str:
        return "a" * 10_000

    @app.get("/stream")
    async def stream() -> Response:
        return StreamingResponse(rows(10), media_type="application/jsonl")

    @app.get("/endless")
    async def endless() -> Response:
        return StreamingResponse(rows(), media_type="application/jsonl")

    async with served(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        with recorded() as records, recorded("plinth.http.errors") as errors:
            head = await client.head(path, headers={"X-Request-ID": "1"})
            async with client.stream("GET", path, headers={"X-Request-ID": "1"}) as get:
                pass
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert comparable(head) == comparable(get)
    assert fields(records[0])["method"] == "HEAD"
    assert not errors


def comparable(response: httpx.Response) -> list[tuple[str, str]]:
    """Return the headers, except those of the moment or of the connection."""
    other = {"x-process-time", "date", "transfer-encoding"}
    return [pair for pair in response.headers.multi_items() if pair[0] not in other]


@pytest.mark.parametrize("prefix", ["", "/{tenant}"])
async def test_a_head_route_of_the_service_serves_head(prefix: str) -> None:
    app = build()

    @app.get(f"{prefix}/things/{{id}}")
    async def get_thing(id: int) -> int:
        return id

    @app.head(f"{prefix}/things/{{id}}")
    async def head_thing(id: int, response: Response) -> None:
        response.headers["X-Thing"] = str(id)

    path = prefix.format(tenant="acme") + "/things/7"
    async with client(app) as session:
        assert (await session.head(path)).headers["X-Thing"] == "7"
        assert "X-Thing" not in (await session.get(path)).headers


@pytest.mark.parametrize("query", [b"q=%FF", b"q=\xff", b"%c3=1", b"a=1&q=%ed%a0%80"])
async def test_a_query_string_that_is_not_utf_8_is_400(query: bytes) -> None:
    start, body = await messages(build(), http_scope("/things") | {"query_string": query})
    assert start["status"] == 400
    assert json.loads(body["body"])["detail"] == "The query string is not valid UTF-8."


@pytest.mark.parametrize("query", [b"", b"q=%C3%A9", "q=é".encode(), b"q=100%", b"q=%zz"])
async def test_any_other_query_string_is_accepted(query: bytes) -> None:
    start, _ = await messages(build(), http_scope("/things") | {"query_string": query})
    assert start["status"] == 404
