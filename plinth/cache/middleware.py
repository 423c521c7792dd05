"""The response cache: serves public GETs from their cached bytes, before routing and dependencies."""

from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from time import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.cache.cache import Cache
from plinth.cache.cached import CachedResponse
from plinth.cache.capture import Load, Unshareable, context_for_everyone, scope_for_everyone
from plinth.cache.routes import CachedRoutes, Hit
from plinth.http import DeadlineMiddleware
from plinth.http.conditional import Headers
from plinth.http.deadline import MAX_SECONDS, requests_timeout
from plinth.telemetry.profiling import UNCACHED
from plinth.telemetry.requests import RequestRecord, current_record

AWAY = {503, 504}
"""What a load answers that could not reach the database, or not in time."""


class ResponseCacheMiddleware:
    """Serves the routes in `routes` from `request.state.cache`.

    Place it inside of middleware that adds to every response, and outside of ConditionalMiddleware and GZipMiddleware:
    cached responses are compressed once, and compared with the client's validators here. `debug_header` adds
    `X-Cache: hit`, `miss` or `bypass`, also where `enabled` is false; `stale` is always said. `deadline_max_seconds` is
    `max_seconds` of DeadlineMiddleware, which belongs inside: a request that waits for a load has its
    `X-Request-Timeout` here.
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
        deadline_max_seconds: float = MAX_SECONDS,
    ) -> None:
        self.app = app
        self.routes = routes
        self.gzip = gzip_level, gzip_minimum_bytes
        self.enabled = enabled
        self.debug_header = debug_header
        self.deadline_max_seconds = deadline_max_seconds
        self._state: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # What the lifespan opens. In `request.state`, middleware may have put something of the caller beside it.
            self._state = scope.get("state")
        is_get = scope["type"] == "http" and scope["method"] == "GET" and scope.get("app") is self.routes.app
        is_get = is_get and UNCACHED not in scope
        cache: Cache | None = scope.get("state", {}).get("cache") if is_get else None
        is_cached, hit = self._find(scope, cache) if cache else (False, None)
        if hit is None or cache is None or not self.enabled or scope["app"].dependency_overrides:
            await self.app(scope, receive, self._bypassing(send) if is_cached else send)
            return
        scope["endpoint"] = hit.route.endpoint  # as routing does, for the middleware outside of this one
        record = current_record.get() or RequestRecord()
        record.route_template, record.cache = hit.route.path, "memory"
        response = cache.peek(hit.caching)
        if response is not None and not requests_timeout(scope["headers"]):
            await self._send(response, b"hit", scope, receive, send)
            return
        # The load has a deadline of its own, inside of this middleware. This one is of the request that waits for it.
        waiting = DeadlineMiddleware(partial(self._load, cache, hit), 0.0, self.deadline_max_seconds)
        await waiting(scope, receive, send)

    async def _load(self, cache: Cache, hit: Hit, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the response, which is loaded for all who wait for it; or pass on what may not be shared."""
        record = current_record.get() or RequestRecord()
        response, was = cache.peek(hit.caching), b"hit"
        if response is None:
            load_scope = scope_for_everyone(hit, scope, self._state or {"cache": cache})
            load, load_record = Load(self.app, load_scope, hit, self.gzip), record.nested(load_scope)
            try:
                response, record.cache = await cache.fetch(hit.caching, load, context_for_everyone(load_record))
            except Unshareable as unshareable:
                record.cache = "bypass"
                self._forget(unshareable, cache, hit)
                if load.is_stream:
                    await load.relay(self._bypassing(send))
                else:
                    await self.app(scope, receive, self._bypassing(send))
                return
            except BaseException:
                load.abandon()
                raise
            was = b"miss" if load.ran else was
            record.absorb(load_record)
        # Of a load only: while the database answers, nothing stale is looked for.
        stale = cache.stale(hit.caching) if response.status in AWAY else None
        if stale is not None:
            response, record.cache, was = stale, "stale", b"stale"
        await self._send(response, was, scope, receive, send)

    # Not a coroutine: returning the awaitable saves a coroutine call per request.
    def _send(
        self, response: CachedResponse, was: bytes, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        if response.status >= 500:
            return response.send([], scope, receive, self._bypassing(send))
        extra_headers: Headers = [(b"age", b"%d" % max(0, int(time() - response.created_at)))]
        if self.debug_header or was == b"stale":
            extra_headers.append((b"x-cache", was))
        return response.send(extra_headers, scope, receive, send)

    def _find(self, scope: Scope, cache: Cache) -> tuple[bool, Hit | None]:
        """Whether a cached route answers the request, and how it is cached, if it is."""
        if self.routes.have_changed():
            cache.urls.clear()
        url = scope.get("root_path", ""), scope["path"], scope["query_string"]
        hit: Hit | None = cache.urls.get(url)
        if hit is not None:
            return True, hit
        match = self.routes.match(scope)
        if match is None:
            return False, None
        if match[1] is not None:
            with suppress(ValueError):  # larger than all that URLs may take
                cache.urls[url] = match[1]
        return True, match[1]

    def _forget(self, unshareable: Unshareable, cache: Cache, hit: Hit) -> None:
        if unshareable.reason:
            self.routes.mark_unshareable(hit.route, unshareable.reason)
            cache.urls.clear()

    def _bypassing(self, send: Send) -> Send:
        if not self.debug_header:
            return send

        async def bypassing_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-cache", b"bypass")]}
            await send(message)

        return bypassing_send
