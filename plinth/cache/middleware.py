"""The response cache: serves public GETs from their cached bytes, before routing and dependencies."""

import asyncio
from functools import lru_cache
from time import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.cache import cached
from plinth.cache.cache import Cache, Loaded
from plinth.cache.routes import BYPASS, CachedRoutes, Rule
from plinth.http.comparing import comparing
from plinth.http.conditional import Headers

# Removed from the request of a load, since its response is served to every client.
_CLIENT_HEADERS = frozenset(
    {b"accept-encoding", b"authorization", b"cookie", b"if-match", b"if-modified-since", b"if-none-match", b"if-range"}
    | {b"if-unmodified-since", b"range"}
)
_MAX_UNPACKED = 500
"""Responses that are kept as they are sent, beside the packed bytes in the store."""


class _NotShareable(Exception):  # noqa: N818 - not an error
    """The response may be sent to one client only."""


class ResponseCacheMiddleware:
    """Serves the routes in `routes` from `request.state.cache`.

    Place it inside of middleware that adds to every response, and outside of ConditionalMiddleware and GZipMiddleware:
    cached responses are compressed once, and compared with the client's validators here. `debug_header` adds
    `X-Cache: hit`, `miss` or `bypass`, also where `enabled` is false.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: CachedRoutes,
        gzip_level: int,
        gzip_minimum_bytes: int,
        *,
        enabled: bool = True,
        debug_header: bool = False,
    ) -> None:
        self.app = app
        self.routes = routes
        self.gzip = gzip_level, gzip_minimum_bytes
        self.enabled = enabled
        self.debug_header = debug_header
        self.unpack = lru_cache(maxsize=_MAX_UNPACKED)(cached.unpack)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = self.routes.match(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if match is None:
            await self.app(scope, receive, send)
            return
        bypassing_send = _adding_bypass(send) if self.debug_header else send
        if match is BYPASS or not self.enabled:
            await self.app(scope, receive, bypassing_send)
            return
        cache: Cache = scope["state"]["cache"]
        captured: list[Message] = []
        loads = 0

        async def load() -> Loaded:
            nonlocal loads
            loads += 1
            return await self._load(scope, match.rule, captured)

        try:
            response = await cache.fetch(match.key, match.names, load, self.unpack)
        except _NotShareable:
            if not captured:  # another request's load, whose response is not for this client, or a stream
                await self.app(scope, receive, bypassing_send)
            comparing_send = comparing(scope, receive, bypassing_send)
            for message in captured:
                await comparing_send(message)
            return
        extra_headers: Headers = [(b"age", b"%d" % max(0, int(time() - response.created_at)))]
        if self.debug_header:
            extra_headers.append((b"x-cache", b"miss" if loads else b"hit"))
        await response.send(extra_headers, scope, receive, send)

    async def _load(self, scope: Scope, rule: Rule, captured: list[Message]) -> Loaded:
        """Run the app for a request without the client's headers. Raises _NotShareable, with what was `captured`."""
        headers = [header for header in scope["headers"] if header[0] not in _CLIENT_HEADERS]
        capture = _Capture(captured, rule)
        try:
            await self.app({**scope, "headers": headers, "state": dict(scope["state"])}, _no_message, capture.send)
        except OSError:
            if not capture.is_stream:
                raise
        if capture.is_stream:
            captured.clear()
        if capture.is_stream or not capture.is_shareable or len(captured) != 2:
            raise _NotShareable
        headers, body = [*captured[0]["headers"]], captured[1].get("body", b"")
        if captured[0]["status"] == 200:
            return Loaded(cached.pack(headers, body, *self.gzip), rule.ttl)
        packed = cached.pack_not_found(headers, body)
        if packed is None:
            raise _NotShareable
        return Loaded(packed, rule.missing_ttl)


class _Capture:
    def __init__(self, messages: list[Message], rule: Rule) -> None:
        self.messages = messages
        self.statuses = {200, 404} if rule.missing_ttl else {200}
        self.is_shareable = False
        self.is_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            cache_control = headers.get(b"cache-control", b"")
            private = b"set-cookie" in headers or b"private" in cache_control or b"no-store" in cache_control
            self.is_shareable = message["status"] in self.statuses and not private
        elif message.get("more_body") or message["type"] != "http.response.body":
            self.is_stream = True
            raise OSError("Streams are not cached")  # ends the stream, as the disconnect of a client does
        self.messages.append(message)


async def _no_message() -> Message:
    """The `receive` of a load: a GET has no body, and no client that could disconnect."""
    await asyncio.Event().wait()
    raise AssertionError


def _adding_bypass(send: Send) -> Send:
    async def bypassing_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-cache", b"bypass")]
        await send(message)

    return bypassing_send
