"""The profile of one request in place of its response. Needs the extra `profiling`."""

import asyncio
import hmac
from contextlib import suppress

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.telemetry.settings import ProfileSettings

INTERVAL_SECONDS = 0.0005
UNCACHED = "plinth.uncached"
"""A key of the scope: the response cache leaves the request alone, because its loads run outside of the profile."""
MEDIA_TYPES = {b"1": "text/html", b"speedscope": "application/json"}


class ProfileMiddleware:
    """Runs a request that has the header `X-Profile` to its end, and answers with what took its time.

    `X-Profile: 1` answers pyinstrument's page, `X-Profile: speedscope` a file for https://www.speedscope.app. The
    status is 200, and that of the request is in `X-Profile-Status`; what the request changes, is changed. Where
    PROFILE_TOKEN is set, the request needs it as `X-Profile-Token`. Any other request, HEAD included, is answered as
    without this middleware. A response that has not ended after `seconds`, such as a stream, is cut off there.
    """

    def __init__(self, app: ASGIApp, settings: ProfileSettings, seconds: float) -> None:
        self.app = app
        self.token = settings.token.get_secret_value().encode() if settings.token else None
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        media_type = self._requested(scope)
        if media_type is None:
            await self.app(scope, receive, send)
            return
        from pyinstrument import Profiler
        from pyinstrument.renderers import HTMLRenderer, SpeedscopeRenderer

        scope[UNCACHED] = True
        status = "none"

        async def drop(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await asyncio.sleep(0)  # a stream that waits for nothing but its client would block the event loop

        # Bound to this request: what other requests do in its pauses is not in it.
        with Profiler(interval=INTERVAL_SECONDS, async_mode="enabled") as profiler, suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self.app(scope, receive, drop)
        renderer = HTMLRenderer() if media_type == "text/html" else SpeedscopeRenderer()
        headers = {"Cache-Control": "no-store", "X-Profile-Status": status}
        await Response(profiler.output(renderer), 200, headers, media_type)(scope, receive, send)

    def _requested(self, scope: Scope) -> str | None:
        if scope["type"] != "http" or scope["method"] == "HEAD":
            return None
        headers = dict(scope["headers"])
        given = headers.get(b"x-profile-token", b"")
        if self.token is not None and not hmac.compare_digest(given, self.token):
            return None
        return MEDIA_TYPES.get(headers.get(b"x-profile", b""))
