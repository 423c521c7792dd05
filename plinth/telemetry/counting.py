"""The metrics of requests: how many, with which result, in which time (RED), by the template of the route.

Each combination of labels has its metrics looked up once: `labels()` takes longer than all else here.
"""

from functools import cache

from prometheus_client import Counter, Histogram

from plinth.telemetry import metrics
from plinth.telemetry.requests import UNKNOWN_ROUTE, RequestRecord

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class RequestMetrics:
    def __init__(self) -> None:
        self.in_progress = 0
        """Requests that are being answered. A plain number, which `sampled` reports each second."""

    def begin(self) -> None:
        self.in_progress += 1

    def end(self, record: RequestRecord, method: str, status: int, seconds: float) -> None:
        self.in_progress -= 1
        route = record.route or UNKNOWN_ROUTE
        responses, durations = _of_requests(method if method in METHODS else "other", route, status)
        responses.inc()
        durations.observe(seconds)
        if record.queries:
            queries, database_seconds = _of_statements(route)
            queries.inc(record.queries)
            database_seconds.inc(record.database_seconds)
        if record.cache is not None:
            cache_requests("response", record.cache).inc()


request_metrics = RequestMetrics()
"""Of this process."""


@cache
def _of_requests(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.REQUESTS.labels(method, route, status), metrics.REQUEST_SECONDS.labels(method, route)


@cache
def _of_statements(route: str) -> tuple[Counter, Counter]:
    return metrics.QUERIES.labels(route), metrics.DATABASE_SECONDS.labels(route)


@cache
def cache_requests(kind: str, result: str) -> Counter:
    return metrics.CACHE_REQUESTS.labels(kind, result)
