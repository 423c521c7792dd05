"""How long a request may run: a deadline, which its client may set, and no longer than the client of a read waits."""

import re
from collections.abc import Awaitable

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.errors import DeadlineError
from plinth.http.conditional import Headers
from plinth.http.disconnects import DisconnectWatch
from plinth.http.errors import app_error
from plinth.http.problems import problem
from plinth.resilience.deadline import deadline, lift

MAX_SECONDS = 60.0
REQUESTED = b"x-request-timeout"
_DECIMAL = re.compile(rb"[0-9]+(\.[0-9]+)?")
_INVALID = "Send X-Request-Timeout once, as a decimal number of seconds above 0, such as 2.5."


class DeadlineMiddleware:
    """Answers 504 where no response has started after `seconds`. A stream that has started is not interrupted.

    A client sets the time of its request by `X-Request-Timeout`, in seconds: to `max_seconds` at the most. Where
    `seconds` is 0, only such a request has a deadline. GET and HEAD are also cancelled when their client disconnects,
    and have no response then. Any other method runs to its end.

    Place it inside of ResponseCacheMiddleware, so that cached responses do not pay for it, and just outside of
    UnhandledErrorMiddleware.
    """

    def __init__(self, app: ASGIApp, seconds: float, max_seconds: float = MAX_SECONDS) -> None:
        self.app = app
        self.seconds = seconds
        self.max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            limit = deadline(self._seconds(scope["headers"]))
        except ValueError:
            await problem(400, _INVALID)(scope, receive, send)
            return
        watch = DisconnectWatch(receive, limit) if scope["method"] in {"GET", "HEAD"} else None
        started = False

        # Not a coroutine: returning the awaitable saves a coroutine call per message.
        def lifting_send(message: Message) -> Awaitable[None]:
            nonlocal started
            if not started:
                lift()
                started = True
            return send(message)

        try:
            async with limit:
                await self.app(scope, watch.receive if watch else receive, lifting_send)
        except DeadlineError as error:
            if started:
                raise
            if watch is None or not watch.client_left:
                response = await app_error(Request(scope, receive), error)
                await response(scope, receive, send)
        finally:
            if watch:
                watch.end()

    def _seconds(self, headers: Headers) -> float | None:
        """Raises ValueError for a header that is none."""
        requested = [value for name, value in headers if name == REQUESTED]
        if not requested:
            return self.seconds or None
        seconds = float(requested[0]) if len(requested) == 1 and _DECIMAL.fullmatch(requested[0]) else 0.0
        if seconds <= 0:
            raise ValueError
        return min(seconds, self.max_seconds)


def requests_timeout(headers: Headers) -> bool:
    return REQUESTED in [name for name, _ in headers]
