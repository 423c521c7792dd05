"""Refuses requests that an overloaded process could not answer in time, before they cost anything."""

from collections.abc import Awaitable, Callable, Collection
from random import getrandbits

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.access import received_id
from plinth.http.forwarded import route_path
from plinth.http.problems import MEDIA_TYPE, title
from plinth.resilience.shedding import Limiter, Priority

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_PROBLEM = {
    "type": "urn:problem-type:service-unavailable",
    "title": title(503),
    "status": 503,
    "detail": "The service is overloaded. Retry later.",
}
_BODY = orjson.dumps(_PROBLEM)[:-1] + b',"request_id":"%s"}'


class SheddingMiddleware:
    """Answers 503 with Retry-After where more requests arrive than the process can answer.

    A request holds its slot until its response starts: a stream may last for hours and take next to no time. While its
    body has not arrived, others have the slot. Writes get a slot before reads, and GETs whose path ends with one of
    `exports` come last. Never held back are WebSockets, the paths in `exempt`, and what `is_cached` says is answered
    from memory.

    Place it outside of all that costs time, and inside of ForwardedMiddleware, which sets the path.
    """

    def __init__(
        self,
        app: ASGIApp,
        queue_seconds: float,
        is_cached: Callable[[Scope], bool],
        exempt: Collection[str] = (),
        exports: tuple[str, ...] = (),
    ) -> None:
        self.app = app
        self.is_cached = is_cached
        self.exempt = frozenset(exempt)
        self.exports = exports
        self.limiter = Limiter(queue_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limiter = self.limiter
        if not limiter.try_enter():
            priority = self._priority(scope)
            if priority is None:
                await self.app(scope, receive, send)
                return
            if not await limiter.wait(priority):
                await _refuse(scope, send)
                return
        holds = True
        is_reading = scope["method"] not in _READS

        async def lending_receive() -> Message:
            nonlocal is_reading
            if not (is_reading and holds):
                return await receive()
            limiter.lend()
            try:
                message = await receive()
            finally:
                limiter.take_back()
            is_reading = message.get("more_body", False)
            return message

        # Not a coroutine: returning the awaitable saves a coroutine call per message.
        def leaving_send(message: Message) -> Awaitable[None]:
            nonlocal holds
            if holds:
                holds = False
                limiter.leave()
            return send(message)

        try:
            await self.app(scope, lending_receive if is_reading else receive, leaving_send)
        finally:
            if holds:
                limiter.leave()

    def _priority(self, scope: Scope) -> Priority | None:
        """None for what is never held back."""
        if scope["method"] not in _READS:
            return Priority.WRITE
        path = route_path(scope)
        if path in self.exempt or self.is_cached(scope):
            return None
        return Priority.EXPORT if path.endswith(self.exports) else Priority.READ


async def _refuse(scope: Scope, send: Send) -> None:
    """Answer without reading the body, and without a line in the log: the limiter logs how many there were."""
    id = (received_id(scope) or f"{getrandbits(64):016x}").encode()
    body = b"" if scope["method"] == "HEAD" else _BODY % id
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(_BODY % id)),
        (b"retry-after", b"1"),
        (b"x-request-id", id),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
