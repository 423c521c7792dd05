"""Errors, compared with plain FastAPI: a service's own handlers are called, and no detail of an exception is lost."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from httpx import Response
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.errors import ConflictError, NotFoundError
from tests.plinth.http.apps import build, client, http_scope, messages

OWN = {"type", "title", "status", "detail", "request_id"}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*sorted(OWN), "errors", "instance", "code"])


def raising(app: FastAPI, detail: Any) -> FastAPI:
    @app.get("/")
    async def fail() -> None:
        raise HTTPException(409, detail)

    return app


def body(app: ASGIApp) -> dict[str, Any]:
    _, message = asyncio.run(messages(app, http_scope()))
    content: dict[str, Any] = json.loads(message["body"])
    return content


@example({"code": "taken"})
@example({"code": 1, "detail": "It is taken."})
@example({"status": "gone", "code": 1})
@example([{"loc": ["a"]}])
@example(2**70)
@example("\ud83d")
@given(JSON_VALUES | st.dictionaries(NAMES, JSON_VALUES))
def test_the_detail_of_an_http_exception_is_kept(detail: Any) -> None:
    found = body(raising(build(), detail))
    assert found.keys() >= OWN
    assert found["status"] == 409
    if detail is None:
        return
    if isinstance(detail, str):
        expected = detail.encode("utf-8", "replace").decode()
        assert found["detail"] == (expected if detail != "Conflict" else "Conflict.")
        return
    stock = body(raising(FastAPI(), detail))["detail"]
    if "details" in found and not (isinstance(detail, dict) and "details" in detail):
        assert found["details"] == stock
    else:
        assert {name: found[name] for name in stock} == stock


def answer(name: str) -> Callable[[Request, Exception], JSONResponse]:
    def handler(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"by": name, "path": request.url.path, "error": type(error).__name__}, 418)

    return handler


class MineError(Exception):
    pass


class Callable_:  # noqa: N801 - a handler that is an object
    async def __call__(self, request: Request, error: Exception) -> JSONResponse:
        return answer("object")(request, error)


ERRORS: dict[str, Callable[[], Exception]] = {
    "http-404": lambda: HTTPException(404, "x"),
    "http-409": lambda: HTTPException(409, {"a": 1}),
    "http-500": lambda: HTTPException(500, "x"),
    "starlette-503": lambda: StarletteHTTPException(503),
    "mine": MineError,
    "key": lambda: KeyError("x"),
}
KEYS: list[Any] = [404, 405, 409, 500, 503, Exception, HTTPException, StarletteHTTPException, MineError, LookupError]


async def respond(app: FastAPI, path: str, method: str = "GET") -> Response:
    async with client(app) as session:
        return await session.request(method, path)


def failing(app: FastAPI) -> FastAPI:
    @app.get("/fail/{name}")
    async def fail(name: str) -> None:
        raise ERRORS[name]()

    return app


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("kind", ["function", "object"])
async def test_the_same_handlers_are_called_as_in_plain_fastapi(key: Any, kind: str) -> None:
    ours, stock = failing(build()), failing(FastAPI())
    for app in (ours, stock):
        app.add_exception_handler(key, answer("function") if kind == "function" else Callable_())
    requests = [("GET", f"/fail/{name}") for name in ERRORS] + [("GET", "/nothing"), ("POST", "/fail/key")]
    for method, path in requests:
        try:
            expected = await respond(stock, path, method)
        except Exception:
            # httpx passes on what Starlette raises again after its answer, which ours answers further inside.
            expected = None
        found = await respond(ours, path, method)
        is_own = found.headers["Content-Type"] == "application/json"
        if expected is None:
            assert is_own == (key in {500, Exception}), (path, found.text)
        else:
            assert is_own == (expected.status_code == 418), (path, found.text)
        assert not is_own or found.json()["path"] == path


@pytest.mark.parametrize(("error", "status"), [(NotFoundError("thing", 1), 404), (ConflictError("Taken."), 409)])
async def test_a_handler_of_a_status_is_called_for_our_errors_too(error: Exception, status: int) -> None:
    app = build()

    @app.get("/")
    async def fail() -> None:
        raise error

    @app.exception_handler(status)
    async def handle(request: Request, found: HTTPException) -> JSONResponse:
        return JSONResponse({"detail": found.detail, "status": found.status_code}, 418)

    response = await respond(app, "/")
    assert (response.status_code, response.json()) == (418, {"detail": str(error), "status": status})


class BrokenMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("place", ["outermost", "inside"])
@pytest.mark.parametrize("key", [None, 500, Exception])
async def test_an_error_of_a_middleware_is_a_problem_and_raised_to_the_server(place: str, key: Any) -> None:
    app = build()
    app.add_middleware(BrokenMiddleware)
    if place == "inside":  # of the one that sets the request id
        app.user_middleware.insert(1, app.user_middleware.pop(0))
    if key is not None:
        app.add_exception_handler(key, answer("service"))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        # In a task of its own, whose request id remains for the line of the server.
        await asyncio.create_task(app(http_scope(), None, send))  # type: ignore[arg-type]
    content, headers = json.loads(sent[1]["body"]), dict(sent[0]["headers"])
    if key is not None:
        assert (sent[0]["status"], content["by"]) == (418, "service")
        return
    assert (sent[0]["status"], content["type"]) == (500, "urn:problem-type:internal-error")
    assert content["request_id"] == headers[b"x-request-id"].decode() != ""
