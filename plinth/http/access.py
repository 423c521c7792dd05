"""The request's id, its record and its line in the access log."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator
from random import getrandbits, random
from time import perf_counter

from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.conditional import Headers
from plinth.http.deprecation import deprecation_of
from plinth.http.forwarded import route_path
from plinth.telemetry.context import request_id
from plinth.telemetry.counting import request_metrics
from plinth.telemetry.requests import RequestRecord, current_record
from plinth.telemetry.settings import LogSettings
from plinth.telemetry.tracing import complete_span

log = logging.getLogger(__name__)
_access_log = logging.getLogger("app.access")

# Other characters could end the header, or look like another field in a log line.
_WELL_FORMED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Nginx's status for a client that disconnected before the response.
_NO_RESPONSE = 499
_INTERNAL_ERROR = 500
_ERRORS = 400
_REQUEST = {"event": "request"}


class RequestContextMiddleware:
    """Sets `request_id` for the time of the request, adds `X-Request-ID` and `X-Process-Time`, logs a line, and counts
    the request in the metrics.

    It also adds the headers of `deprecated_route`: it is outside of everything that answers in place of a route.

    The id is the request's `X-Request-ID` if that has 1 to 128 letters, digits, `.`, `_` or `-`, else 16 random
    hexadecimal digits. `X-Process-Time` is in seconds, up to the start of the response; `duration_ms` in the log is up
    to its last byte. Requests for the paths in `unlogged` are not logged, and of the others that succeed in time only
    the part that LOG_SAMPLE says.

    With `debug_queries`, for development, `X-Queries` says how many statements ran up to the start of the response and
    how long they took, and one that ran `REPEATED` times or more is logged, and counted in `X-Repeated-Statements`.
    """

    def __init__(
        self,
        app: ASGIApp,
        unlogged: Collection[str] = (),
        log: LogSettings | None = None,
        *,
        debug_queries: bool = False,
    ) -> None:
        self.app = app
        self.log = log or LogSettings()
        self.unlogged = unlogged
        self.debug_queries = debug_queries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        outer = current_record.get()
        record = outer.nested(scope) if outer else RequestRecord(scope)
        if self.debug_queries and record.statements is None:
            record.statements = Counter()
        response = _Response(scope, send, record, self.debug_queries)
        token = request_id.set(response.request_id)
        record_token = current_record.set(record)
        request_metrics.begin()
        try:
            await self.app(scope, receive, response.send)
        except Exception:
            # Starlette answers outside of all middleware.
            response.status = _INTERNAL_ERROR if response.status == _NO_RESPONSE else response.status
            raise
        finally:
            if outer:
                outer.absorb(record)
            if self.debug_queries:
                _warn_of_repeated(record)
            seconds = response.seconds()
            request_metrics.end(record, scope["method"], response.status, seconds)
            if self._is_logged(scope, response.status, seconds):
                _log_access(record, scope, response.status, response.bytes_sent, seconds)
        # Skipped if an error is raised: the server logs it outside of all middleware, and its line needs the id.
        request_id.reset(token)
        current_record.reset(record_token)

    def _is_logged(self, scope: Scope, status: int, seconds: float) -> bool:
        if route_path(scope) in self.unlogged or not _access_log.isEnabledFor(logging.INFO):
            return False
        always = self.log.sample >= 1 or status >= _ERRORS or seconds > self.log.slow_seconds
        return always or random() < self.log.sample


class _Response:
    """Adds the headers of every response, and keeps what becomes of it."""

    def __init__(self, scope: Scope, send: Send, record: RequestRecord, debug_queries: bool) -> None:
        self._scope, self._send, self._record, self._debug_queries = scope, send, record, debug_queries
        self._started_at, self._ended_at = perf_counter(), 0.0
        self._span = trace.get_current_span()
        self.request_id = received_id(scope) or f"{getrandbits(64):016x}"
        self.status, self.bytes_sent = _NO_RESPONSE, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._span.is_recording():
                complete_span(self._span, self._scope["method"], self._record, self.request_id)
            await self._send({**message, "headers": [*message.get("headers", ()), *self._headers()]})
        else:
            await self._send(message)
            self.bytes_sent += len(message.get("body", b""))
            self._ended_at = perf_counter()

    def _headers(self) -> Headers:
        process_time = b"%.6f" % (perf_counter() - self._started_at)
        headers = [(b"x-request-id", self.request_id.encode()), (b"x-process-time", process_time)]
        if deprecation := deprecation_of(self._scope.get("endpoint")):
            headers += deprecation.headers
        if self._debug_queries:
            headers += _query_headers(self._record)
        return headers

    def seconds(self) -> float:
        """Up to the last byte, or to now where there is none."""
        return (self._ended_at or perf_counter()) - self._started_at


def received_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _WELL_FORMED_ID.fullmatch(value) else None
    return None


def _log_access(record: RequestRecord, scope: Scope, status: int, bytes_sent: int, seconds: float) -> None:
    path, client = scope["path"], scope.get("client")
    fields = {
        "method": scope["method"],
        # A decoded path may contain line breaks. The query string is left out: clients put tokens there.
        "path": path if path.isprintable() else repr(path)[1:-1],
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "bytes_sent": bytes_sent,
        "client": client[0] if client else None,
        "route": record.route,
        "user": record.user,
        "cache": record.cache,
        "queries": record.queries,
        "database_ms": round(record.database_seconds * 1000, 3),
    }
    # As `_access_log.info` does, without the search for its caller: that takes a fifth of the time of the whole line.
    log, message = _access_log, "%(method)s %(path)s %(status)d"
    log.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, message, (fields,), None, extra=_REQUEST))


def _query_headers(record: RequestRecord) -> Iterator[tuple[bytes, bytes]]:
    yield b"x-queries", b"%d in %.1f ms" % (record.queries, record.database_seconds * 1000)
    if repeated := record.repeated:
        yield b"x-repeated-statements", b"%d" % repeated[1]


def _warn_of_repeated(record: RequestRecord) -> None:
    if repeated := record.repeated:
        statement, times = repeated
        log.warning(
            "A request to %(route)s ran a statement %(times)d times, which one for all rows may replace: %(statement)s",
            {"route": record.route, "times": times, "statement": statement},
            extra={"event": "repeated_statement"},
        )
