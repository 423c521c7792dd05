"""Request ids, the access log, and HEAD requests."""

import logging
import re
from collections.abc import Awaitable, Collection
from random import getrandbits
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.telemetry.context import request_id

access_log = logging.getLogger("app.access")

# Other characters could break out of a header, or of a query on the log.
_WELL_FORMED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Nginx's status for a request whose client disconnected before the response.
_NO_RESPONSE = 499


class RequestContextMiddleware:
    """Sets the request's id, from `X-Request-ID` or a random one, measures the request and writes the access log.

    A well-formed id has 1 to 128 letters, digits, `.`, `_` or `-`; any other is replaced. It is a header of the
    response and a field of everything that is logged meanwhile. `X-Process-Time` is the time to the start of the
    response in seconds, `duration_ms` in the log the time to its last byte. Paths in `unlogged` are not logged.
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
        id = _sent_id(scope) or f"{getrandbits(64):016x}"

        async def observed_send(message: Message) -> None:
            nonlocal ended_at, status, bytes_sent
            if message["type"] == "http.response.start":
                status = message["status"]
                process_time = b"%.6f" % (perf_counter() - started_at)
                own = (b"x-request-id", id.encode()), (b"x-process-time", process_time)
                message["headers"] = [*message.get("headers", ()), *own]
                await send(message)
            else:
                await send(message)
                bytes_sent += len(message.get("body", b""))
                ended_at = perf_counter()

        token = request_id.set(id)
        try:
            await self.app(scope, receive, observed_send)
        finally:
            if scope["path"] not in self.unlogged and access_log.isEnabledFor(logging.INFO):
                _log_access(scope, status, bytes_sent, (ended_at or perf_counter()) - started_at)
        # Not after an error: the server logs it outside of all middleware, with the id that is still set.
        request_id.reset(token)


def _log_access(scope: Scope, status: int, bytes_sent: int, seconds: float) -> None:
    path, client = scope["path"], scope.get("client")
    access_log.info(
        "%(method)s %(path)s %(status)d",
        {
            "method": scope["method"],
            # A path may contain line breaks. The query is left out: it is where people put tokens.
            "path": path if path.isprintable() else repr(path)[1:-1],
            "status": status,
            "duration_ms": int(seconds * 1e6) / 1e3,
            "bytes_sent": bytes_sent,
            "client": client[0] if client else None,
        },
    )


class HeadMiddleware:
    """Answers HEAD requests as GET requests, without the body (RFC 9110 §9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return self.app(scope, receive, send)
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] != "http.response.body":
                await send(message)
                return
            if ended:
                raise OSError("The response to a HEAD request has no body")  # ends a stream, as a disconnect would
            ended = True
            await send({"type": "http.response.body", "body": b""})

        return self.app({**scope, "method": "GET"}, receive, send_head)


def _sent_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _WELL_FORMED_ID.fullmatch(value) else None
    return None
