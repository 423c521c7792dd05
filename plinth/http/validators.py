"""Validators of responses: `ETag`, `Last-Modified` and, for cacheable endpoints, `Cache-Control` (RFC 9110 §8.8).

The ETag of a response that shows one row is `"<version>.<hash>"`, that of any other cacheable response is `"<hash>"`.
The hash is of the uncompressed body, which can change while the row does not: a product shows its category's name.
"""

from collections.abc import Awaitable
from datetime import UTC, datetime
from hashlib import blake2b

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.conditional import Headers

_SCOPE_KEY = "plinth.validators"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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
    `Validators.set` too. Streams and responses with an `ETag` or `Set-Cookie` of their own pass unchanged. Add it
    inside of `GZipMiddleware`, so that it hashes the uncompressed body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        return self.app(scope, receive, validating(scope, send))


def validating(scope: Scope, send: Send) -> Send:
    """Wrap `send` so that it adds the validators once it has the whole body."""
    held: Message | None = None

    async def validating_send(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start":
            if is_success(message["status"]) and _has_validators(scope) and _has_length(message):
                held = message
                return
        elif held is not None:
            start, held = held, None
            if message["type"] == "http.response.body" and not message.get("more_body"):
                headers = start["headers"]
                start = {**start, "headers": [*headers, *validators(scope, headers, message.get("body", b""))]}
            await send(start)
        await send(message)

    return validating_send


def validators(scope: Scope, headers: Headers, body: bytes) -> Headers:
    """Return the headers to add to a successful response that has these `headers` and this `body`."""
    row, cache_control = scope.get(_SCOPE_KEY), _cache_control(scope)
    present = {name for name, _ in headers}
    if (row is None and cache_control is None) or b"etag" in present or b"set-cookie" in present:
        return []
    digest = blake2b(body, digest_size=8).hexdigest()
    if row is None:
        added = [(b"etag", f'"{digest}"'.encode())]
    else:
        version, last_modified_at = row
        added = [(b"etag", f'"{version}.{digest}"'.encode()), (b"last-modified", http_date(last_modified_at))]
    if cache_control is not None and b"cache-control" not in present:
        added.append((b"cache-control", cache_control))
    return added


def is_success(status: int) -> bool:
    """Return whether the body of a response with this status represents a resource."""
    return status in {200, 201}


def http_date(at: datetime) -> bytes:
    """Format an instant as `Sat, 21 Nov 2026 08:05:06 GMT` (RFC 9110 §5.6.7), whatever the process's locale is."""
    at = at.astimezone(UTC)
    day = f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04}"
    return f"{day} {at.hour:02}:{at.minute:02}:{at.second:02} GMT".encode()


def _cache_control(scope: Scope) -> bytes | None:
    return getattr(scope.get("endpoint"), "cache_control", None)


def _has_validators(scope: Scope) -> bool:
    return _SCOPE_KEY in scope or _cache_control(scope) is not None


def _has_length(start: Message) -> bool:
    """Return whether the response has a Content-Length: the headers of a stream must not wait for its body."""
    return any(name == b"content-length" for name, _ in start.get("headers", ()))
