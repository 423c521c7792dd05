"""The response cache: serves public GETs from their cached bytes, before routing and dependencies."""

from contextlib import suppress
from time import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.cache.cache import Cache
from plinth.cache.capture import Load, Unshareable, context_for_everyone, scope_for_everyone
from plinth.cache.routes import CachedRoutes, Hit
from plinth.http.conditional import Headers


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
        self._state: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # What the lifespan opens. In `request.state`, middleware may have put something of the caller beside it.
            self._state = scope.get("state")
        is_get = scope["type"] == "http" and scope["method"] == "GET" and scope.get("app") is self.routes.app
        cache: Cache | None = scope.get("state", {}).get("cache") if is_get else None
        is_cached, hit = self._find(scope, cache) if cache else (False, None)
        if hit is None or cache is None or not self.enabled or scope["app"].dependency_overrides:
            await self.app(scope, receive, self._bypassing(send) if is_cached else send)
            return
        scope["endpoint"] = hit.route.endpoint  # as routing does, for the middleware outside of this one
        response, was = cache.peek(hit.caching), b"hit"
        if response is None:
            load = Load(self.app, scope_for_everyone(hit, scope, self._state or {"cache": cache}), hit, self.gzip)
            try:
                response = await cache.fetch(hit.caching, load, context_for_everyone())
            except Unshareable as unshareable:
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
        if response.status >= 500:
            await response.send([], scope, receive, self._bypassing(send))
            return
        extra_headers: Headers = [(b"age", b"%d" % max(0, int(time() - response.created_at)))]
        if self.debug_header:
            extra_headers.append((b"x-cache", was))
        await response.send(extra_headers, scope, receive, send)

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
