"""What endpoints set on their responses: JSON that they built themselves, links, and validators (RFC 9110 §8.8).

The ETag of a response that shows one row is `"<version>.<hash>"`, that of any other cacheable response is `"<hash>"`.
The hash is of the uncompressed body, which can change while the row does not: a product shows its category's name.
"""

from collections.abc import Awaitable
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote, unquote_plus

import orjson
from fastapi import Request, Response
from fastapi.security.base import SecurityBase
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.conditional import Headers

# The characters of a path and a query string (RFC 3986). "%" is among them: what the client encoded is not changed.
_URI = "%!$&'()*+,;=:@/?-._~"
_SCOPE_KEY = "plinth.validators"
_VALIDATORS = frozenset({b"etag", b"last-modified"})
_LIFETIMES = frozenset({b"cache-control", b"expires"})
_CREDENTIALS = frozenset({b"authorization", b"cookie"})


class ORJSONResponse(JSONResponse):
    """Serializes with orjson. Not for endpoints with a return type, which Pydantic serializes faster by itself."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)


class Links:
    """Sets `Link` and `Location`. Targets are relative, because a proxy may serve the API under another host name."""

    def __init__(self, request: Request, response: Response) -> None:
        self._scope = request.scope
        self._headers = response.headers

    def page(self, next_cursor: str | None) -> None:
        """Set `Link` (RFC 8288) to the first page and, unless `next_cursor` is None, to the next page.

        Both keep the query parameters of this request, except `cursor`.
        """
        links = [f'<{self._page_url(cursor=None)}>; rel="first"']
        if next_cursor is not None:
            links.append(f'<{self._page_url(next_cursor)}>; rel="next"')
        self._headers.append("Link", ", ".join(links))

    def created(self, id: int | str) -> None:
        """Set `Location` (RFC 9110 §10.2.2) to the resource with this id below the URL of the request."""
        self._headers["Location"] = f"{raw_path(self._scope)}/{quote(str(id), '')}"

    def location(self, path: str) -> None:
        """Set `Location` to another path of the service, such as that of a job which was started."""
        self._headers["Location"] = self._scope.get("root_path", "") + path

    def _page_url(self, cursor: str | None) -> str:
        pairs = raw_query(self._scope).split("&")
        query = [pair for pair in pairs if pair and unquote_plus(pair.partition("=")[0]) != "cursor"]
        if cursor is not None:
            query.append(f"cursor={quote(cursor, '')}")
        path = raw_path(self._scope)
        return f"{path}?{'&'.join(query)}" if query else path


class Validators:
    """Sets which version of a row the response shows: `validators.set(product.version, product.last_modified_at)`."""

    def __init__(self, request: Request) -> None:
        self._scope = request.scope

    def set(self, version: int, last_modified_at: datetime) -> None:
        """Make `ValidatorsMiddleware` add `ETag` and `Last-Modified`. `last_modified_at` must have a time zone."""
        self._scope[_SCOPE_KEY] = version, last_modified_at


class ValidatorsMiddleware:
    """Adds validators to complete 200 and 201 responses, whichever kind of route sent them.

    `ETag` and `Last-Modified` come from `Validators.set`. `Cache-Control` is the attribute `cache_control` (bytes) of
    the endpoint, which routing stores in the scope; `@cached_response` sets it, and its responses get an ETag without
    `Validators.set` too. Streams and responses with an `ETag` or `Set-Cookie` of their own get none.

    No response to GET is fresh unless it says so (RFC 9111 §4.2.2): one with validators and without `Cache-Control`
    gets `no-cache`; `private, no-cache` is for requests with credentials and routes with a security dependency.
    Add it inside of `GZipMiddleware`, so that it hashes the uncompressed body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        held: Message | None = None

        async def validating_send(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                if _awaits_validators(scope, message):
                    held = message
                    return
                message = _never_fresh(scope, message)
            elif held is not None:
                start, held = held, None
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    added = _validators(scope, start["headers"], message.get("body", b""))
                    start = {**start, "headers": [*start["headers"], *added]}
                await send(_never_fresh(scope, start))
            await send(message)

        return self.app(scope, receive, validating_send)


def validators_of(scope: Scope) -> tuple[int, datetime] | None:
    """What `Validators.set` was called with."""
    return scope.get(_SCOPE_KEY)


def raw_path(scope: Scope) -> str:
    """Return the path as the client percent-encoded it, safe to use in a header."""
    return quote(scope.get("raw_path") or quote(scope["path"]).encode(), _URI)


def raw_query(scope: Scope) -> str:
    """Return the query string as the client percent-encoded it, safe to use in a header."""
    return quote(scope["query_string"], _URI)


def _awaits_validators(scope: Scope, start: Message) -> bool:
    """Return whether to hold the start back until the body is there. The start of a stream must not wait."""
    if start["status"] not in {200, 201} or (_SCOPE_KEY not in scope and _cache_control(scope) is None):
        return False
    names = {name for name, _ in start.get("headers", ())}
    return b"content-length" in names and names.isdisjoint({b"etag", b"set-cookie"})


def _validators(scope: Scope, headers: Headers, body: bytes) -> Headers:
    digest = blake2b(body, digest_size=8).hexdigest()
    if _SCOPE_KEY in scope:
        version, last_modified_at = scope[_SCOPE_KEY]
        modified = format_datetime(last_modified_at.astimezone(UTC), usegmt=True)
        added = [(b"etag", f'"{version}.{digest}"'.encode()), (b"last-modified", modified.encode())]
    else:
        added = [(b"etag", f'"{digest}"'.encode())]
    cache_control = _cache_control(scope)
    if cache_control is not None and not any(name == b"cache-control" for name, _ in headers):
        added.append((b"cache-control", cache_control))
    return added


def _never_fresh(scope: Scope, start: Message) -> Message:
    """Add the default of Cache-Control to what a cache would otherwise guess a lifetime for, or share between users."""
    if scope["method"] not in {"GET", "HEAD"}:
        return start
    names = {name for name, _ in start.get("headers", ())}
    has_credentials = any(name in _CREDENTIALS for name, _ in scope["headers"])
    if not names.isdisjoint(_LIFETIMES) or (names.isdisjoint(_VALIDATORS) and not has_credentials):
        return start
    value = b"private, no-cache" if has_credentials or _is_secured(scope) else b"no-cache"
    return {**start, "headers": [*start.get("headers", ()), (b"cache-control", value)]}


def _is_secured(scope: Scope) -> bool:
    """Return whether the route depends on one of FastAPI's security schemes: an API key can be in any header."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    dependants = [getattr(each, "dependant", None) for each in (context, scope.get("route"))]
    while dependants:
        dependant = dependants.pop()
        if dependant is not None:
            if isinstance(dependant.call, SecurityBase):
                return True
            dependants += dependant.dependencies
    return False


def _cache_control(scope: Scope) -> bytes | None:
    return getattr(scope.get("endpoint"), "cache_control", None)
