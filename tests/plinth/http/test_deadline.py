"""The deadline of a request, as an endpoint, a stream, a background task and a WebSocket meet it."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from httpx import ASGITransport, AsyncClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.types import Message

from plinth.errors import DeadlineError
from plinth.http import DeadlineMiddleware, FastRoute, UnhandledErrorMiddleware, exception_handlers
from plinth.resilience import deadline, remaining

SECONDS = 0.05
ROUNDING = 1e-6
"""The time of an event loop is a large number of seconds, so that a difference to it is not exact."""


def app_with(seconds: float = SECONDS, max_seconds: float = 60.0) -> FastAPI:
    deadlines = Middleware(DeadlineMiddleware, seconds=seconds, max_seconds=max_seconds)
    return FastAPI(middleware=[deadlines, Middleware(UnhandledErrorMiddleware)], exception_handlers=exception_handlers)


def client_of(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="http://test")


async def never() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("is_fast", [False, True])
async def test_a_request_that_takes_too_long_is_answered_with_504(
    is_fast: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with()
    if is_fast:
        app.router.route_class = FastRoute
    app.get("/slow")(never)
    async with client_of(app) as client:
        response = await client.get("/slow")
    assert response.status_code == 504
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["title"] == "Gateway timeout"
    assert response.json()["detail"] == str(DeadlineError())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_deadline_of_an_endpoint_is_answered_the_same_way() -> None:
    app = app_with(60)

    @app.get("/slow")
    async def slow() -> None:
        async with deadline(0):
            await never()

    async with client_of(app) as client:
        assert (await client.get("/slow")).json()["detail"] == str(DeadlineError())


async def test_an_endpoint_knows_what_is_left() -> None:
    app = app_with(60)

    @app.get("/left")
    async def left() -> float | None:
        return remaining()

    async with client_of(app) as client:
        assert 0 < (await client.get("/left")).json() < 60 + ROUNDING


async def test_a_service_may_answer_504_in_its_own_way() -> None:
    app = app_with()
    app.get("/slow")(never)

    @app.exception_handler(504)
    async def answer(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"own": error.detail}, 504)

    async with client_of(app) as client:
        assert (await client.get("/slow")).json() == {"own": str(DeadlineError())}


async def test_a_stream_and_a_background_task_are_not_interrupted() -> None:
    app, done = app_with(), asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        for piece in "abc":
            yield piece
            await asyncio.sleep(SECONDS)
        assert remaining() is None

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())

    async def work() -> None:
        await asyncio.sleep(2 * SECONDS)
        done.set()

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    async with client_of(app) as client:
        response = await client.get("/stream")
        assert (response.status_code, response.text) == (200, "abc")
        assert (await client.get("/background")).status_code == 200
    assert done.is_set()


async def test_a_deadline_inside_of_a_stream_ends_the_response() -> None:
    app = app_with(60)

    async def pieces() -> AsyncIterator[str]:
        yield "a"
        async with deadline(0):
            await never()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await never()
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/stream", "headers": [], "query_string": b""}
    with pytest.raises(RuntimeError, match="response already started"):  # Starlette's
        await asyncio.create_task(app(scope, receive, send))
    assert [message["type"] for message in sent].count("http.response.start") == 1


async def test_a_websocket_has_no_deadline() -> None:
    app = app_with(0.001)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await asyncio.sleep(0.05)
        await websocket.accept()
        await websocket.send_text(str(remaining()))
        await websocket.close()

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    assert [message.get("text") for message in sent] == [None, "None", None]


def app_that_shows(seconds: float, max_seconds: float) -> FastAPI:
    """Its endpoint answers with the time that is left, whatever the method."""
    app = app_with(seconds, max_seconds)

    @app.api_route("/left", methods=["GET", "POST"])
    async def left() -> float | None:
        return remaining()

    return app


SHOWING = app_that_shows(30.0, 60.0)


async def answer(app: FastAPI, *requested: bytes, method: str = "GET") -> tuple[int, Any]:
    """The status and the body for a request with these values of the header, as they arrive from the parser."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    headers = [(b"host", b"test"), *((b"x-request-timeout", value) for value in requested)]
    await app(
        {"type": "http", "method": method, "path": "/left", "headers": headers, "query_string": b""}, receive, send
    )
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


@pytest.mark.parametrize(
    ("default", "requested", "allowed"),
    [
        (30.0, b"2.5", 2.5),
        (30.0, b"45", 45.0),
        (30.0, b"060.000", 60.0),
        (30.0, b"61", 60.0),
        (30.0, b"9" * 1000, 60.0),
        (0.0, b"7", 7.0),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_sets_the_deadline_up_to_the_maximum(
    method: str, default: float, requested: bytes, allowed: float
) -> None:
    status, left = await answer(app_that_shows(default, 60.0), requested, method=method)
    assert status == 200
    assert allowed - 1 < left < allowed + ROUNDING


async def test_what_takes_longer_than_its_client_allows_is_answered_with_504() -> None:
    app = app_with(60)
    app.post("/slow")(never)
    async with client_of(app) as client:
        response = await client.post("/slow", headers={"X-Request-Timeout": str(SECONDS)})
    assert (response.status_code, response.json()["detail"]) == (504, str(DeadlineError()))


WRONG = [b"", b"0", b"0.0", b"-1", b"+1", b"nan", b"inf", b"Infinity", b"1e400", b"1e1", b"1_0", b"2,5", b".5", b"5."]
WRONG += [b"2.5s", b"0x10", b"1 2", b"1\n", "\u0662".encode(), "\uff15".encode(), b"\xb2", b"\xff", b"1, 2", b"1;2"]


@pytest.mark.parametrize("requested", [*([value] for value in WRONG), [b"1", b"1"], [b"1", b"2"], [b"1", b""]])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_no_number_of_seconds_is_refused(method: str, requested: list[bytes]) -> None:
    status, problem = await answer(SHOWING, *requested, method=method)
    assert status == 400
    assert "X-Request-Timeout once" in problem["detail"]
    assert "2.5" in problem["detail"]


@given(requested=st.one_of(st.binary(max_size=6), st.text(alphabet="019.e-+_ \u0661", max_size=6).map(str.encode)))
async def test_every_value_is_a_time_or_refused(requested: bytes) -> None:
    status, answered = await answer(SHOWING, requested)
    is_time = re.fullmatch(rb"[0-9]+(\.[0-9]+)?", requested) is not None and Fraction(requested.decode()) > 0
    assert status in ({200, 504} if is_time else {400})  # 504 where the time is shorter than the request takes
    assert status != 200 or 0 <= answered < min(60.0, float(requested)) + ROUNDING
