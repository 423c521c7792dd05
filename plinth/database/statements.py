"""Every statement: the comment that it is sent with, the count of its request, and the log of slow ones."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeAlias
from urllib.parse import quote

from cachetools import TTLCache

from plinth.database.settings import DatabaseSettings
from plinth.telemetry.requests import RequestRecord, current_record

log = logging.getLogger(__name__)

Explain: TypeAlias = Callable[[str, int], Awaitable[Sequence[Any]]]

_EXPLAINABLE = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
PLAN_SECONDS = 60.0
"""For so long after the plan of a statement was logged, it is not logged again."""
_MOST_TYPES = 20


class StatementLog:
    """`explain` returns the rows of the plan of a statement with so many parameters."""

    def __init__(self, settings: DatabaseSettings, explain: Explain | None = None) -> None:
        self._slow_seconds = settings.slow_statement_seconds
        self._has_comments = settings.statement_comments
        self._explain = explain if settings.explain_slow else None
        self._explained: TTLCache[str, bool] = TTLCache(1000, PLAN_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()

    def commented(self, sql: str) -> str:
        """Append the route of the request, or the name of the job, for pg_stat_activity and the server's log.

        The text is the same for all requests to a route, so that it stays prepared: it must not have an id.
        """
        if not self._has_comments or not (record := current_record.get()):
            return sql
        if route := record.route:
            return sql + _comment("route", route)
        return sql + _comment("job", record.job) if record.job else sql

    def add(self, sql: str, seconds: float, parameters: Sequence[Any], is_batch: bool = False) -> None:
        """Count a statement, whose text is without the comment. Of a batch, the types are those of its first row."""
        record = current_record.get()
        if record:
            record.add_statement(sql, seconds, is_batch)
        if seconds <= self._slow_seconds:
            log.debug("%s", sql)
            return
        values = parameters[0] if is_batch and parameters and isinstance(parameters[0], (tuple, list)) else parameters
        fields = {"seconds": seconds, "statement": sql, "types": _types(values), **_origin(record)}
        log.warning("A statement took %(seconds).3f s: %(statement)s", fields, extra={"event": "slow_statement"})
        if self._explain and sql not in self._explained and _EXPLAINABLE.match(sql):
            self._explained[sql] = True
            task = asyncio.get_running_loop().create_task(self._log_plan(self._explain, sql, len(values)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the EXPLAINs that are running."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _log_plan(self, explain: Explain, sql: str, parameters: int) -> None:
        try:
            rows = await explain(sql, parameters)
        except Exception:
            log.debug("A statement cannot be explained: %s", sql, exc_info=True)
            return
        plan = "\n".join(row[0] for row in rows)
        fields = {"statement": sql, "plan": plan, **_origin(current_record.get())}
        log.warning("The plan of %(statement)s\n%(plan)s", fields, extra={"event": "statement_plan"})


def _types(values: Sequence[Any]) -> str:
    """The types of the values, which may be secret themselves."""
    names = [type(value).__name__ for value in islice(values, _MOST_TYPES)]
    return ", ".join([*names, "…"] if len(values) > _MOST_TYPES else names)


def _origin(record: RequestRecord | None) -> dict[str, str | None]:
    if record is None:
        return {}
    return {"job": record.job} if record.job else {"route": record.route}


@lru_cache(1000)
def _comment(key: str, value: str) -> str:
    """As https://google.github.io/sqlcommenter/spec describes. Encoded, no value can end the comment."""
    return f" /*{key}='{quote(value, safe='/{}:')}'*/"
