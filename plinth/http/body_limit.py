"""A body that is too large is refused before it is read: memory is spent on what a route allows, not on what comes."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def body_limit(max_bytes: int) -> Callable[[Endpoint], Endpoint]:
    """Give one endpoint its own limit, larger or smaller than `HTTP_MAX_BODY_BYTES`; stands under the route."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.max_body_bytes = max_bytes  # type: ignore[attr-defined]
        return endpoint

    return mark


class BodyLimitMiddleware:
    """Raises HTTPException(413) where the body is read: at once if it says how long it is, else when it gets too long.

    What is never read is not counted. The endpoint is known by then, because nothing reads a body before routing.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        allowed: int | None = None
        length = 0

        async def limited_receive() -> Message:
            nonlocal allowed, length
            if allowed is None:
                allowed = getattr(scope.get("endpoint"), "max_body_bytes", self.max_bytes)
                if _announced(scope) > allowed:
                    raise _too_large(allowed)
            message = await receive()
            length += len(message.get("body", b""))
            if length > allowed:
                raise _too_large(allowed)
            return message

        # Handed on, not awaited: that spares every request a coroutine.
        return self.app(scope, limited_receive, send)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _too_large(allowed: int) -> HTTPException:
    # The rest of the body is on its way, and nobody will read it.
    return HTTPException(413, f"The body is larger than the {allowed} bytes allowed here.", {"Connection": "close"})
