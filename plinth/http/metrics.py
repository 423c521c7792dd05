"""Serves /metrics."""

import asyncio
import gzip
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from plinth.http.problems import problem
from plinth.telemetry.scraping import Scrape, metrics_folder
from plinth.telemetry.settings import MetricsSettings

log = logging.getLogger(__name__)

PATH = "/metrics"
FETCH_SECONDS = 0.5


class MetricsMiddleware:
    """Answers `GET /metrics`, whichever of the workers receives it: what all of them count is added up.

    On METRICS_PORT nothing else is answered, and no token is needed. On the port of the service, METRICS_TOKEN is; if
    there is none, the path is `public` or, like any other, unknown. Place it outermost: a scrape is neither logged nor
    counted. `fetch` returns what no process keeps of the state that the lifespan yields; if it fails, that is left out.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: MetricsSettings,
        public: bool = False,
        fetch: Callable[[Any], Awaitable[Iterable[Metric]]] | None = None,
    ) -> None:
        self.app = app
        self._port = settings.port
        self._token = settings.token.get_secret_value().encode() if settings.token else None
        self._public = public
        self._fetch = fetch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_scrape = scope["path"] == PATH
        on_own_port = self._port is not None and scope.get("server") is not None and scope["server"][1] == self._port
        if not on_own_port and (not is_scrape or (self._token is None and not self._public)):
            await self.app(scope, receive, send)
            return
        response: Response
        if not is_scrape:
            response = problem(404, f"This port has {PATH} only.")
        elif scope["method"] not in {"GET", "HEAD"}:
            response = problem(405, f"{PATH} can be read only.", headers={"Allow": "GET, HEAD"})
        elif not on_own_port and self._token is not None and not self._is_authorized(scope):
            response = problem(401, "Send METRICS_TOKEN as a bearer token.", headers={"WWW-Authenticate": "Bearer"})
        else:
            response = await self._scrape(Headers(scope=scope), scope.get("state"))
        await response(scope, receive, send)

    def _is_authorized(self, scope: Scope) -> bool:
        sent = Headers(scope=scope).get("authorization", "").encode("latin-1")
        scheme, _, token = sent.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token, self._token or b"")

    async def _scrape(self, headers: Headers, state: Any) -> Response:
        encode, media_type = choose_encoder(headers.get("accept", ""))
        zipped = gzip_accepted(headers.get("accept-encoding", ""))
        scrape = Scrape(metrics_folder(), await self._fetched(state))

        def body() -> bytes:
            text = encode(scrape)
            return gzip.compress(text, 4) if zipped else text

        # In a thread: there may be many files to read.
        response = Response(await asyncio.to_thread(body), media_type=media_type)
        if zipped:
            response.headers["Content-Encoding"] = "gzip"
        return response

    async def _fetched(self, state: Any) -> Iterable[Metric]:
        if self._fetch is None:
            return ()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                return await self._fetch(state)
        except Exception as error:  # a scrape is worth the most while something else has failed
            log.warning("A scrape lacks metrics that could not be fetched: %r", error)
            return ()
