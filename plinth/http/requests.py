"""Middleware for every request: its id and access log line, HEAD, and the encoding of its query string."""

import logging
import re
from collections.abc import Awaitable, Collection, Iterator
from random import getrandbits
from time import perf_counter
from urllib.parse import unquote_to_bytes

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.comparing import ResponseEnded, run_until_ended
from plinth.http.deprecation import deprecation_of
from plinth.http.forwarded import route_path
from plinth.http.problems import problem
from plinth.telemetry.context import request_id

_access_log = logging.getLogger("app.access")

# Other characters could end the header, or look like another field in a log line.
_WELL_FORMED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Nginx's status for a client that disconnected before the response.
_NO_RESPONSE = 499
_INTERNAL_ERROR = 500
_MOST_PARAMETERS = 1000  # as of fields in a form, which is Starlette's bound


class RequestContextMiddleware:
    """Sets `request_id` for the time of the request, adds `X-Request-ID` and `X-Process-Time`, and logs one line.

    It also adds the headers of `deprecated_route`: it is outside of everything that answers in place of a route.

    The id is the request's `X-Request-ID` if that has 1 to 128 letters, digits, `.`, `_` or `-`, else 16 random
    hexadecimal digits. `X-Process-Time` is in seconds, up to the start of the response; `duration_ms` in the log is up
    to its last byte. Requests for the paths in `unlogged` are not logged.
    """

    def __init__(self, app: ASGIApp, unlogged: Collection[str] = ()) -> None:
        self.app = app
        self.unlogged = unlogged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = perf_counter()
        ended_at = 0.0
        status, bytes_sent = _NO_RESPONSE, 0
        id = _received_id(scope) or f"{getrandbits(64):016x}"

        async def timing_send(message: Message) -> None:
            nonlocal ended_at, status, bytes_sent
            if message["type"] == "http.response.start":
                status = message["status"]
                process_time = b"%.6f" % (perf_counter() - started_at)
                headers = [
                    *message.get("headers", ()),
                    (b"x-request-id", id.encode()),
                    (b"x-process-time", process_time),
                ]
                if deprecation := deprecation_of(scope.get("endpoint")):
                    headers += deprecation.headers
                await send({**message, "headers": headers})
            else:
                await send(message)
                bytes_sent += len(message.get("body", b""))
                ended_at = perf_counter()

        token = request_id.set(id)
        try:
            await self.app(scope, receive, timing_send)
        except Exception:
            # Starlette answers outside of all middleware.
            status = _INTERNAL_ERROR if status == _NO_RESPONSE else status
            raise
        finally:
            if route_path(scope) not in self.unlogged and _access_log.isEnabledFor(logging.INFO):
                _log_access(scope, status, bytes_sent, (ended_at or perf_counter()) - started_at)
        # Skipped if an error is raised: the server logs it outside of all middleware, and its line needs the id.
        request_id.reset(token)


class HeadMiddleware:
    """Serves HEAD by the GET endpoint and drops the body (RFC 9110 §9.3.2), unless a route takes HEAD itself.

    `Range` is for GET only (§14.2), so the endpoint does not see it.
    A mount takes every method, so it takes HEAD only if no route before it serves the GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "HEAD" or _takes_head(scope):
            return self.app(scope, receive, send)
        ended = False
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        get_scope = {**scope, "method": "GET", "headers": headers}

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                scope["endpoint"] = get_scope.get("endpoint")  # for the middleware outside of this one
                await send(message)
                return
            if not ended:
                ended = True
                await send({"type": "http.response.body", "body": b""})
            if message.get("more_body"):
                raise ResponseEnded("The response to HEAD has no body")

        return run_until_ended(self.app, get_scope, receive, send_head)


class QueryEncodingMiddleware:
    """Refuses a query string that is not UTF-8, which Starlette would decode to replacement characters.

    Also one with more parameters than a form may have fields: each costs time, and no endpoint takes so many.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"")
        if query.count(b"&") >= _MOST_PARAMETERS:
            detail = f"The query string has too many parameters. At most {_MOST_PARAMETERS} are allowed."
            await problem(400, detail)(scope, receive, send)
            return
        if b"%" in query or not query.isascii():
            try:
                unquote_to_bytes(query).decode()
            except UnicodeDecodeError:
                await problem(400, "The query string is not valid UTF-8.")(scope, receive, send)
                return
        await self.app(scope, receive, send)


def has_route(scope: Scope, method: str, kind: str = "http") -> bool:
    """Return whether a route of the application matches the path of this request and the method."""
    return next(_positions(scope, method, kind), None) is not None


def _takes_head(scope: Scope) -> bool:
    head = next(_positions(scope, "HEAD"), None)
    if head is None:
        return False
    gets = [*_positions(scope, "GET")]
    return head not in gets or head == gets[0]


def _positions(scope: Scope, method: str, kind: str = "http") -> Iterator[int]:
    """Yield the positions of the routes that match the path of this request and the method."""
    if "app" not in scope:
        return
    # Not a copy of the whole scope: what routing stored in it for this request must not influence the match.
    kept = {name: scope[name] for name in ("path", "root_path", "headers", "app") if name in scope}
    for position, route in enumerate(scope["app"].routes):
        if route.matches({**kept, "type": kind, "method": method})[0] is Match.FULL:
            yield position


def _received_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _WELL_FORMED_ID.fullmatch(value) else None
    return None


def _log_access(scope: Scope, status: int, bytes_sent: int, seconds: float) -> None:
    path, client = scope["path"], scope.get("client")
    _access_log.info(
        "%(method)s %(path)s %(status)d",
        {
            "method": scope["method"],
            # A decoded path may contain line breaks. The query string is left out: clients put tokens there.
            "path": path if path.isprintable() else repr(path)[1:-1],
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "bytes_sent": bytes_sent,
            "client": client[0] if client else None,
        },
    )
