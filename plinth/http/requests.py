"""Middleware for every request: HEAD, and the encoding of its query string."""

from collections.abc import Awaitable, Iterator
from urllib.parse import unquote_to_bytes

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.comparing import ResponseEnded, run_until_ended
from plinth.http.problems import problem
from plinth.telemetry.requests import current_record

_MOST_PARAMETERS = 1000  # as of fields in a form, which is Starlette's bound


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
        if record := current_record.get():
            record.scope = get_scope

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
