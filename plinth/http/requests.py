"""Every request has an id and one line in the log; the id is in the answer and in all that is logged meanwhile."""

import logging
import re
from collections.abc import Awaitable, Collection
from random import getrandbits
from time import perf_counter, time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.telemetry.context import request_id
from plinth.telemetry.logs import ACCESS_LOG

_access_log = logging.getLogger(ACCESS_LOG)

# Anything else a client may send could break out of a header, or of a query on the log.
_WELL_FORMED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# What nginx calls a request whose client left before the answer.
_NO_ANSWER = 499


class RequestContextMiddleware:
    """Takes the request's id from `X-Request-ID` or makes one, times the request and logs it.

    A well-formed id has 1 to 128 letters, digits, `.`, `_` or `-`; any other is replaced. `X-Process-Time` is the
    seconds until the answer begins; `duration_ms` in the log runs to its last byte. Paths in `unlogged` are not logged.
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
        status, bytes_sent = _NO_ANSWER, 0
        id = _sent_id(scope) or f"{getrandbits(64):016x}"

        async def noting_send(message: Message) -> None:
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
            await self.app(scope, receive, noting_send)
        finally:
            if scope["path"] not in self.unlogged and _access_log.isEnabledFor(logging.INFO):
                _access_log.handle(_AccessRecord(scope, status, bytes_sent, (ended_at or perf_counter()) - started_at))
        # Not after an error: the server logs that, outside of all middleware, and should name the request too.
        request_id.reset(token)


class HeadMiddleware:
    """Answers HEAD as GET would be answered, but for the body (RFC 9110 §9.3.2)."""

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
                raise OSError("Nobody reads on")  # which ends a stream, as a client that left does
            ended = True
            await send({"type": "http.response.body", "body": b""})

        return self.app({**scope, "method": "GET"}, receive, send_head)


def _sent_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _WELL_FORMED_ID.fullmatch(value) else None
    return None


class _AccessRecord(logging.LogRecord):
    """What `info()` would make, but for thread, process and source line: looking them up costs more than the rest."""

    _blank = vars(
        logging.makeLogRecord(
            {
                "name": _access_log.name,
                "levelno": logging.INFO,
                "levelname": "INFO",
                "msg": "%(method)s %(path)s %(status)d",
            }
        )
    )

    def __init__(self, scope: Scope, status: int, bytes_sent: int, seconds: float) -> None:
        path, client = scope["path"], scope.get("client")
        self.__dict__ = self._blank.copy()
        self.created = time()
        self.args = {
            "method": scope["method"],
            # A path may hold anything, line breaks too. The query is left out: it is where people put tokens.
            "path": path if path.isprintable() else repr(path)[1:-1],
            "status": status,
            "duration_ms": int(seconds * 1e6) / 1e3,
            "bytes_sent": bytes_sent,
            "client": client[0] if client else None,
        }
