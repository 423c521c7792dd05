"""Translates exceptions to problem details. No response contains a traceback, database text or the client's input."""

import logging
from collections.abc import Callable, Coroutine
from http.client import responses
from inspect import iscoroutinefunction, isroutine
from random import getrandbits
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.errors import (
    AppError,
    ChangedError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    InvalidError,
    InvalidItemsError,
    LimitError,
    MediaTypeError,
    NotFoundError,
    OutcomeUnknownError,
    UnauthenticatedError,
    UnavailableError,
)
from plinth.http.faults import fault_of, invalid_request, unreadable
from plinth.http.problems import content_too_large, extended, problem, title
from plinth.http.requests import has_route
from plinth.telemetry.context import request_id

_log = logging.getLogger(__name__)

_STATUSES = {
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    LimitError: 429,
    MediaTypeError: 415,
    InvalidError: 422,
    InvalidItemsError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    ChangedError: 412,
    DeadlineError: 504,
    UnavailableError: 503,
    AppError: 400,
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SENTENCES = {
    404: "There is no resource at this URL.",
    405: "This resource does not support that method. See the Allow header.",
}


class UnhandledErrorMiddleware:
    """Answers 500 to an exception without a handler, and logs it once.

    `@app.exception_handler(Exception)` replaces the response. The 413 of Starlette's `RequestBodyLimitMiddleware` is
    plain text, and becomes a problem. Add both as the innermost middleware, so that these responses pass through the
    others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        exceeded_limit: int | None = None

        async def watching_send(message: Message) -> None:
            nonlocal started, exceeded_limit
            if message["type"] == "http.response.start" and message["status"] == 413:
                exceeded_limit = _exceeded_limit(scope, message)
            if exceeded_limit is None:
                started = True
                await send(message)

        try:
            await self.app(scope, receive, watching_send)
        except ClientDisconnect:
            return  # there is no client to answer, and no error to log
        except Exception as error:
            if started:
                raise  # the server closes the connection, which is all that can be done now, and logs the error
            _log.exception("Unhandled error in %(method)s %(path)s", {"method": scope["method"], "path": scope["path"]})
            response = await _internal_error(Request(scope, receive), error)
            await response(scope, receive, send)
        if exceeded_limit is not None:
            await content_too_large(exceeded_limit)(scope, receive, send)


def _exceeded_limit(scope: Scope, start: Message) -> int | None:
    """Return the limit that a request body exceeded if the response is that of Starlette's body limit.

    That replaces every other response, problems too, if the Content-Length of the request exceeds the limit.
    """
    content_type = dict(start["headers"]).get(b"content-type", b"")
    return scope.get(MAX_BODY_SIZE_SCOPE_KEY) if content_type.startswith(b"text/plain") else None


async def _internal_error(request: Request, error: Exception) -> Response:
    response = await _by_service(request, 500, error) or await _by_service(request, Exception, error)
    return response or problem(500, "An unexpected error occurred. Quote the request id when you report it.")


async def _outside_error(request: Request, error: Exception) -> Response:
    """Answer an error outside of `UnhandledErrorMiddleware`, in another middleware. Starlette raises it again."""
    id = request_id.get() or f"{getrandbits(64):016x}"
    request_id.set(id)  # the server logs the error, and its line needs the id
    response = await _internal_error(request, error)
    response.headers["X-Request-ID"] = id
    return response


async def _by_service(request: Request, key: int | type[Exception], error: Exception) -> Response | None:
    """Return the response of the handler that the service has registered for a status or Exception, if there is one."""
    handler: Any = request.app.exception_handlers.get(key) if "app" in request.scope else None
    if handler is None or handler is _outside_error:
        return None
    call = handler if isroutine(handler) else type(handler).__call__
    response: Response = await (
        handler(request, error) if iscoroutinefunction(call) else run_in_threadpool(handler, request, error)
    )
    return response


async def app_error(request: Request, error: AppError) -> Response:
    status = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    if (response := await _by_service(request, status, HTTPException(status, str(error)))) is not None:
        return response
    if error.place or isinstance(error, InvalidError):
        return problem(status, str(error), errors=[await fault_of(request, error)])
    if isinstance(error, InvalidItemsError):
        return problem(status, str(error), errors=[dict(fault) for fault in error.faults])
    if isinstance(error, UnavailableError):
        _log.warning("Answering 503: %r", error.__cause__ or error)
    kind = "Outcome unknown" if isinstance(error, OutcomeUnknownError) else None
    return problem(status, str(error), headers=error.headers, kind=kind)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    status, headers = error.status_code, dict(error.headers or {})
    if status < 400:
        return Response(status_code=status, headers=headers)
    # FastAPI's detail for any exception while it read a body.
    if error.detail == "There was an error parsing the body":
        return problem(status, unreadable(error.__cause__))
    if request.headers.get("Upgrade", "").lower() == "websocket" and has_route(request.scope, "GET", "websocket"):
        _log.error("%s is a WebSocket, for which the extra `websockets` has to be installed", request.scope["path"])
        return problem(501, "This is the address of a WebSocket, which this server does not support yet.")
    if status == 405:
        headers["Allow"] = _allow(request, headers.get("Allow", ""))
    detail: Any = error.detail  # FastAPI's exception takes any JSON
    if not isinstance(detail, str):
        return extended(status, detail, _SENTENCES.get(status, f"{title(status)}."), headers)
    # Python 3.11 has another phrase for 413 than the body limit, whose detail is always that of Python 3.13.
    worded = error.detail not in {responses.get(status, ""), "Content Too Large"}
    if status == 413 and not worded and MAX_BODY_SIZE_SCOPE_KEY in request.scope:
        return content_too_large(request.scope[MAX_BODY_SIZE_SCOPE_KEY])
    return problem(status, error.detail if worded else _SENTENCES.get(status, f"{title(status)}."), headers=headers)


def _allow(request: Request, known: str) -> str:
    """Return all methods of the path (RFC 9110 §10.2.1). Starlette knows those of the first route that matched."""
    allowed = {method.strip() for method in known.split(",")}
    allowed |= {method for method in _METHODS if has_route(request.scope, method)}
    if "GET" in allowed:
        allowed.add("HEAD")
    return ", ".join(sorted(allowed - {request.method, ""}))


async def _validation_error(_: Request, error: RequestValidationError) -> Response:
    return invalid_request(error)


exception_handlers: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    Exception: _outside_error,
    AppError: app_error,
    HTTPException: _http_exception,
    RequestValidationError: _validation_error,
}
