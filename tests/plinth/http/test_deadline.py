"""The deadline of a request, as an endpoint, a stream, a background task and a WebSocket meet it."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from httpx import ASGITransport, AsyncClient
from starlette.middleware import Middleware
from starlette.types import Message

from plinth.errors import DeadlineError
from plinth.http import DeadlineMiddleware, FastRoute, UnhandledErrorMiddleware, exception_handlers
from plinth.resilience import deadline, remaining

SECONDS = 0.05


def app_with(seconds: float = SECONDS) -> FastAPI:
    return FastAPI(
        middleware=[Middleware(DeadlineMiddleware, seconds=seconds), Middleware(UnhandledErrorMiddleware)],
        exception_handlers=exception_handlers,
    )


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
        assert 0 < (await client.get("/left")).json() <= 60


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
        await app(scope, receive, send)
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
