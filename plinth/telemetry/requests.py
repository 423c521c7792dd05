"""What is known of the request or the job in progress, for its log line, its metrics and its statements."""

from collections import Counter
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

UNKNOWN_ROUTE = "unknown"
REPEATED = 3
"""From so many times on, a statement counts as repeated in a request: two are usual, before and after a change."""


class RequestRecord:
    """Filled while a request is answered, or a job runs; `current_record` is that of the code that is running.

    Where middleware hands a copy of the ASGI scope on, it sets `scope` to the copy, which is where routing stores the
    route that matches.
    """

    __slots__ = ("cache", "database_seconds", "job", "queries", "route_template", "scope", "statements", "user")

    def __init__(self, scope: MutableMapping[str, Any] | None = None, job: str | None = None) -> None:
        self.scope = scope
        self.job = job
        self.route_template: str | None = None
        """Set by what answers before routing, such as the response cache."""
        self.user: str | None = None
        """`Principal.name` of who sends the request."""
        self.cache: str | None = None
        """How the response cache answered: `memory`, `redis`, `miss`, `stale` or `bypass`; None without a cache."""
        self.queries = 0
        self.database_seconds = 0.0
        self.statements: Counter[str] | None = None
        """How often each statement ran, where repeated ones are looked for."""

    @property
    def route(self) -> str | None:
        """The template of the route, such as `/api/products/{id}`; None before routing, and where none matches."""
        if self.route_template is None and self.scope is not None:
            self.route_template = route_template(self.scope)
        return self.route_template

    def add_statement(self, sql: str, seconds: float, is_batch: bool = False) -> None:
        """Count a statement. One of several batches of the same rows is not a repetition."""
        self.queries += 1
        self.database_seconds += seconds
        if self.statements is not None and not (is_batch and sql in self.statements):
            self.statements[sql] += 1

    @property
    def repeated(self) -> tuple[str, int] | None:
        """The statement that ran most often and how often, if that is `REPEATED` times or more."""
        most = self.statements.most_common(1) if self.statements else []
        return most[0] if most and most[0][1] >= REPEATED else None

    def nested(self, scope: MutableMapping[str, Any] | None = None) -> "RequestRecord":
        """A record for what runs for this one, which counts statements if this one does."""
        record = RequestRecord(scope)
        record.statements = None if self.statements is None else Counter()
        return record

    def absorb(self, other: "RequestRecord") -> None:
        """Add the statements of what ran for this one under a record of its own, as a load of the cache does."""
        self.queries += other.queries
        self.database_seconds += other.database_seconds
        if self.statements is not None and other.statements is not None:
            self.statements += other.statements


current_record: ContextVar[RequestRecord | None] = ContextVar("current_record", default=None)


def route_template(scope: MutableMapping[str, Any]) -> str | None:
    """The whole template of the route that routing has stored in the scope: `scope["route"]` lacks the prefixes."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(context or scope.get("route"), "path", None)
    return path if isinstance(path, str) else None
