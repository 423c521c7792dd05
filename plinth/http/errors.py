"""Whatever goes wrong, the client reads a problem that we wrote: no traceback, no database text, nothing it sent."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from http.client import responses
from json import JSONDecodeError
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.errors import AppError, ChangedError, ConflictError, InvalidError, NotFoundError, UnavailableError
from plinth.http.problems import problem, title

_log = logging.getLogger(__name__)

_STATUSES = {
    InvalidError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    ChangedError: 412,
    UnavailableError: 503,
    AppError: 400,
}
_RETRY_AFTER_SECONDS = "1"
# A body of a megabyte has room for a hundred thousand faults.
_MOST_FAULTS = 100
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method; the Allow header lists those it does.",
}
# Pydantic quotes the client in these two.
_REWORDED = {
    "union_tag_invalid": "Input should have {discriminator} set to one of {expected_tags}",
    "uuid_parsing": "Input should be a valid UUID",
}


class QueryEncodingMiddleware:
    """Refuses a query that is not UTF-8: it would be read with replacement characters in place of what was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"")
        if b"%" in query or not query.isascii():
            try:
                unquote_to_bytes(query).decode()
            except UnicodeDecodeError:
                await problem(400, "The query is not valid UTF-8.")(scope, receive, send)
                return
        await self.app(scope, receive, send)


class UnhandledErrorMiddleware:
    """Answers 500 to what no handler knows, and logs it once.

    It is the innermost middleware, so that this answer passes through the others like any other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        def watched_send(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientDisconnect:
            pass  # nobody is left to answer, and nothing is wrong here
        except Exception:
            if started:
                raise  # only closing the connection tells the client now; the server does, and logs the error
            _log.exception("Unhandled error in %(method)s %(path)s", {"method": scope["method"], "path": scope["path"]})
            detail = "Something went wrong on our side; the request id finds it in our log."
            await problem(500, detail)(scope, receive, send)


async def _app_error(request: Request, error: AppError) -> Response:
    status = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    if isinstance(error, InvalidError):
        place = {"location": _location(request, error.field), "pointer": _pointer([error.field])}
        return problem(status, str(error), errors=[{**place, "detail": str(error)}])
    if isinstance(error, UnavailableError):
        _log.warning("Answering 503: %r", error.__cause__ or error)
        return problem(status, str(error), headers={"Retry-After": _RETRY_AFTER_SECONDS})
    return problem(status, str(error))


def _location(request: Request, field: str) -> str:
    if field in request.path_params:
        return "path"
    return "query" if field in request.query_params else "body"


async def _http_exception(request: Request, error: HTTPException) -> Response:
    status, headers = error.status_code, dict(error.headers or {})
    if status < 400:
        return Response(status_code=status, headers=headers)
    # FastAPI's words for whatever happened while it read a body.
    if error.detail == "There was an error parsing the body":
        return problem(status, _unreadable(error.__cause__))
    if status == 405:
        headers["Allow"] = _allow(request, headers.get("Allow", ""))
    worded = isinstance(error.detail, str) and error.detail != responses.get(status, "")
    return problem(status, error.detail if worded else _SENTENCES.get(status, f"{title(status)}."), headers=headers)


def _unreadable(cause: BaseException | None) -> str:
    if isinstance(cause, ClientDisconnect):
        raise cause
    if isinstance(cause, UnicodeDecodeError):
        return "The body is not valid UTF-8."
    if isinstance(cause, RecursionError):
        return "The body is nested too deeply."
    if isinstance(cause, ValueError):
        return "A number in the body is too long."
    return "The body cannot be read."


def _allow(request: Request, known: str) -> str:
    """All methods of an address (RFC 9110 §10.2.1). Starlette knows those of the first route that it tried."""
    scope: Scope = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    allowed = {method.strip() for method in known.split(",")}
    for method in _METHODS:
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.routes):
            allowed.add(method)
    if "GET" in allowed:
        allowed.add("HEAD")
    return ", ".join(sorted(allowed - {request.method, ""}))


async def _validation_error(_: Request, error: RequestValidationError) -> Response:
    cause, faults = error.__cause__, error.errors()
    if isinstance(cause, JSONDecodeError):
        return problem(400, f"The body is not valid JSON: {cause.msg} (character {cause.pos}).")
    # A body that does not call itself JSON comes through as it was sent.
    if isinstance(error.body, bytes) and any(fault["loc"][0] == "body" for fault in faults):
        detail = "The body must be JSON, sent with `Content-Type: application/json`."
        return problem(415, detail, headers={"Accept": "application/json"})
    described = [_describe(fault, error.body) for fault in faults[:_MOST_FAULTS]]
    return problem(422, "The request is not valid; `errors` says where.", errors=described)


def _describe(fault: Mapping[str, Any], body: Any) -> dict[str, str]:
    location, *tokens = fault["loc"]
    missing = fault["type"] == "missing"
    if location == "body":
        tokens = list(_in_document(tokens, body, missing))
    if missing and location == "body" and not tokens:
        detail = "A body is required"
    elif fault["type"] in _REWORDED:
        detail = _REWORDED[fault["type"]].format_map(fault["ctx"])
    else:
        detail = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return {"location": location, "pointer": _pointer(tokens), "detail": detail}


def _in_document(tokens: list[int | str], body: Any, missing: bool) -> Iterator[int | str]:
    """Leave out what Pydantic adds to a location but the client did not send, such as the members of a union."""
    for position, token in enumerate(tokens):
        if token in body if isinstance(body, Mapping) else isinstance(body, list) and token in range(len(body)):
            body = body[token]
            yield token
        elif missing and position == len(tokens) - 1:
            yield token


def _pointer(tokens: Iterable[int | str]) -> str:
    """RFC 6901 §6. The client chooses its keys: half a surrogate pair may be one."""
    escaped = (str(token).replace("~", "~0").replace("/", "~1") for token in tokens)
    return "#" + "".join("/" + quote(token, "!$&'()*+,;=:@?", errors="surrogatepass") for token in escaped)


exception_handlers: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    AppError: _app_error,
    HTTPException: _http_exception,
    RequestValidationError: _validation_error,
}
