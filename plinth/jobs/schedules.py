"""Schedules: jobs that are enqueued at set times, in UTC, by exactly one of all workers.

The next time of each schedule is a row. Whichever worker moves it on enqueues the job in the same statement.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal
from uuid import uuid4

from plinth.jobs.claims import Claims
from plinth.jobs.declarations import Job, PayloadT

log = logging.getLogger(__name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATE = timedelta(minutes=1)
"""How late a time may be kept without counting as missed."""
MOST_MISSED = 1000
LONGEST_SLEEP_SECONDS = 10.0

# A schedule whose definition has changed begins again from now.
DECLARE = """
    INSERT INTO plinth_schedules AS schedules (name, definition, next_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
    ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, next_at = excluded.next_at
    WHERE schedules.definition <> excluded.definition
"""
NEXT = "SELECT name, next_at, now() FROM plinth_schedules WHERE name = ANY ($1::text[])"
# Of all workers that read the same time, the condition holds for one.
ADVANCE = """
    WITH advanced AS (
        UPDATE plinth_schedules SET next_at = $3 WHERE name = $1 AND next_at = $2 RETURNING name
    ), added AS (
        INSERT INTO plinth_jobs (id, name, queue, payload)
        SELECT id, $5, $6, $7::json FROM advanced, unnest($4::uuid[]) AS id RETURNING id
    )
    SELECT pg_notify('plinth_jobs', $6) FROM added LIMIT 1
"""


@dataclass(frozen=True)
class Schedule(Generic[PayloadT]):
    """When a job is enqueued: by `cron` (five fields) or every so many seconds, both in UTC.

    Times that pass while no worker runs are `missed`: made up for by one job, by as many as there were, or skipped.
    """

    name: str
    job: Job[PayloadT]
    payload: PayloadT
    cron: str | None = None
    every_seconds: int | None = None
    missed: Literal["once", "all", "skip"] = "once"

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.every_seconds is None):
            raise ValueError(f"The schedule {self.name} needs either cron or every_seconds.")
        if self.every_seconds is not None and self.every_seconds < 1:
            raise ValueError(f"The schedule {self.name}: every_seconds must be positive.")
        if self.cron is not None and len(self.cron.split()) != 5:
            raise ValueError(f"The schedule {self.name}: {self.cron!r} must have five fields, as in `30 4 * * *`.")
        self.after(datetime.now(UTC))

    @property
    def definition(self) -> str:
        return self.cron or f"every {self.every_seconds} s"

    def after(self, instant: datetime) -> datetime:
        """The first time after an instant."""
        if self.cron is not None:
            return self._next(self.cron, instant)
        step = timedelta(seconds=self.every_seconds or 0)
        return EPOCH + ((instant - EPOCH) // step + 1) * step

    def _next(self, cron: str, instant: datetime) -> datetime:
        from cronsim import CronSim, CronSimError

        try:
            return next(CronSim(cron, instant.astimezone(UTC)))
        except (CronSimError, StopIteration):
            raise ValueError(f"The schedule {self.name}: {cron!r} is not a cron expression.") from None

    def due(self, since: datetime, now: datetime) -> tuple[int, datetime]:
        """How many jobs the times from `since`, which is due, to `now` are, and the first time after them."""
        count = 1
        if self.missed == "all":
            while count < MOST_MISSED and (since := self.after(since)) <= now:
                count += 1
        elif self.missed == "skip":
            count = int(self.after(now - LATE) <= now)
        return count, self.after(now)


class Timetable:
    def __init__(self, schedules: Sequence[Schedule[Any]]) -> None:
        self._schedules = {schedule.name: schedule for schedule in schedules}
        if len(self._schedules) < len(schedules):
            raise ValueError("Two schedules have the same name.")

    async def run(self, claims: Claims) -> None:
        """Enqueue what is due, as long as the queue can be reached."""
        if not self._schedules:
            return
        [(now,)] = await claims.run("SELECT now()")
        all_of_them = self._schedules.values()
        rows = [(each.name, each.definition, each.after(now)) for each in all_of_them]
        await claims.run(DECLARE, *map(list, zip(*rows, strict=True)))
        while True:
            pause = LONGEST_SLEEP_SECONDS
            for name, next_at, now in await claims.run(NEXT, [*self._schedules]):
                following = next_at if next_at > now else await self._advance(claims, name, next_at, now)
                pause = min(pause, (following - now).total_seconds())
            await asyncio.sleep(pause)

    async def _advance(self, claims: Claims, name: str, due_at: datetime, now: datetime) -> datetime:
        schedule = self._schedules[name]
        count, following = schedule.due(due_at, now)
        ids = [uuid4() for _ in range(count)]
        job, payload = schedule.job, schedule.payload.model_dump_json()
        await claims.run(ADVANCE, name, due_at, following, ids, job.name, job.queue, payload)
        return following
