"""Answers of public GETs, kept as the bytes that leave: a hit is served before routing and dependencies.

`@cached_response(ttl=60, tags=["products"])` under a route declares that its answer is the same for everyone, whoever
asks: nothing of a request but its path and its declared query parameters may be seen in it.
"""

import asyncio
from functools import lru_cache
from time import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.cache import answers
from plinth.cache.cache import Cache, Loaded
from plinth.cache.routes import NOT_ASKED, CachedRoutes, Rule
from plinth.http.conditional import Headers, comparing

# What a load may not depend on, since its answer is for everyone.
_PERSONAL = frozenset(
    {b"accept-encoding", b"authorization", b"cookie", b"if-match", b"if-modified-since", b"if-none-match", b"range"}
)
_READ_ANSWERS = 500  # kept as they are sent, beside the packed ones


class _NotShared(Exception):  # noqa: N818 - it is no error
    """The answer was for one alone."""


class ResponseCacheMiddleware:
    """Serves the decorated routes of `routes` from the cache that the lifespan put into the state.

    Stands inside of whatever adds to every answer, and outside of whatever compares or compresses it: what is kept was
    compressed once, and is compared here. `tell` adds `X-Cache`, also where it does not `keep` answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: CachedRoutes,
        gzip_level: int,
        gzip_minimum_bytes: int,
        *,
        keep: bool = True,
        tell: bool = False,
    ) -> None:
        self.app = app
        self.routes = routes
        self.gzip = gzip_level, gzip_minimum_bytes
        self.keep = keep
        self.tell = tell
        self.read = lru_cache(maxsize=_READ_ANSWERS)(answers.read)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.routes.find(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if asked is None:
            await self.app(scope, receive, send)
            return
        passing_send = _telling(send) if self.tell else send
        if asked is NOT_ASKED or not self.keep:
            await self.app(scope, receive, passing_send)
            return
        cache: Cache = scope["state"]["cache"]
        ours: list[Message] = []  # what was answered if the load was ours
        loads = 0

        async def load() -> Loaded:
            nonlocal loads
            loads += 1
            return await self._load(scope, asked.rule, ours)

        try:
            answer = await cache.fetch(asked.key, asked.names, load, self.read)
        except _NotShared:
            if not ours:
                await self.app(scope, receive, passing_send)
            comparing_send = comparing(scope, passing_send)
            for message in ours:
                await comparing_send(message)
            return
        age = max(0, int(time() - answer.made_at))
        told: Headers = [(b"age", b"%d" % age)]
        if self.tell:
            told.append((b"x-cache", b"miss" if loads else b"stale" if age > asked.rule.ttl else b"hit"))
        await answer.send(told, scope, receive, send)

    async def _load(self, scope: Scope, rule: Rule, ours: list[Message]) -> Loaded:
        headers = [header for header in scope["headers"] if header[0] not in _PERSONAL]
        capture = _Capture(ours, rule)
        try:
            await self.app({**scope, "headers": headers, "state": dict(scope["state"])}, _nothing_more, capture.send)
        except OSError:
            if not capture.streams:
                raise
        if capture.streams:
            ours.clear()
        if capture.streams or not capture.is_for_everyone or len(ours) != 2:
            raise _NotShared
        headers, body = [*ours[0]["headers"]], ours[1].get("body", b"")
        if ours[0]["status"] == 200:
            return Loaded(answers.made(headers, body, *self.gzip), rule.ttl, rule.stale)
        missing = answers.missing(headers, body)
        if missing is None:
            raise _NotShared
        return Loaded(missing, rule.missing_ttl)


class _Capture:
    def __init__(self, messages: list[Message], rule: Rule) -> None:
        self.messages = messages
        self.statuses = {200, 404} if rule.missing_ttl else {200}
        self.is_for_everyone = False
        self.streams = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            cache_control = headers.get(b"cache-control", b"")
            private = b"set-cookie" in headers or b"private" in cache_control or b"no-store" in cache_control
            self.is_for_everyone = message["status"] in self.statuses and not private
        elif message.get("more_body") or message["type"] != "http.response.body":
            self.streams = True
            raise OSError("A stream is nothing to keep")  # which ends it, as a client that left does
        self.messages.append(message)


async def _nothing_more() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def _telling(send: Send) -> Send:
    """Adds that the answer is not the cache's."""

    async def telling_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-cache", b"bypass")]
        await send(message)

    return telling_send
