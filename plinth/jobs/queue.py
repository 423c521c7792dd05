"""Enqueueing in the caller's transaction, and what the rest of a service may know of a job.

A job is a row that is written in the transaction of what it belongs to: without the commit there is no job, and with it
there certainly is one.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import orjson
from opentelemetry import propagate
from sqlalchemy import Text, bindparam, literal_column, select, text

from plinth.database import Query, Readable, Session
from plinth.jobs.declarations import Job, PayloadT, Run
from plinth.jobs.tables import JOBS
from plinth.telemetry import request_id

CHANNEL = "plinth_jobs"  # as it is written in the statements
MAX_KEY_CHARACTERS = 200
LONGEST_DELAY = timedelta(days=3660)

# A waiting worker is notified at the commit, unless the job itself is to wait. ON CONFLICT keeps a key that is taken
# from aborting the caller's transaction.
ENQUEUE = text("""
    WITH added AS (
        INSERT INTO plinth_jobs (id, name, queue, priority, key, payload, context, run_at)
        VALUES (:id, :name, :queue, :priority, :key, CAST(:payload AS json), CAST(:context AS json), now() + :delay)
        ON CONFLICT (name, key) WHERE state IN ('queued', 'running') DO NOTHING
        RETURNING id, queue, run_at
    )
    SELECT id, CASE WHEN run_at <= now() THEN pg_notify('plinth_jobs', queue) END FROM added
""")
UNFINISHED = text("""
    SELECT id FROM plinth_jobs WHERE name = :name AND key = :key AND state IN ('queued', 'running')
""")
MARK = text("""
    INSERT INTO plinth_job_effects (job_id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING RETURNING job_id
""")


class Jobs:
    """The queue, as it is bound to the transaction of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def enqueue(
        self,
        job: Job[PayloadT],
        payload: PayloadT,
        *,
        delay: timedelta = timedelta(0),
        key: str | None = None,
        priority: Literal[-1, 0, 1] = 0,
        requested_by: str | None = None,
    ) -> UUID:
        """Add a job that runs `delay` after the transaction began, once that is committed, and return its id.

        While a job of the same name and `key` is queued or running, no other is added: the id is that job's. Jobs of a
        higher `priority` are started first. `requested_by` is part of the job's status, so that a service can show it
        to that user alone: then `key` has to name the user, too, or another one is given the id of this job.

        Raises TypeError or ValueError for arguments that do not fit.
        """
        if not isinstance(payload, job.payload):
            raise TypeError(f"{job.name} takes a {job.payload.__name__}, not a {type(payload).__name__}.")
        if not timedelta(0) <= delay <= LONGEST_DELAY:
            raise ValueError(f"The delay of a job is between none and {LONGEST_DELAY.days} days.")
        if key is not None and (not key.isprintable() or not 0 < len(key) <= MAX_KEY_CHARACTERS):
            raise ValueError(f"The key of a job has 1 to {MAX_KEY_CHARACTERS} printable characters.")
        if priority not in {-1, 0, 1}:
            raise ValueError("The priority of a job is -1, 0 or 1.")
        values = {
            "id": uuid4(),
            "name": job.name,
            "queue": job.queue,
            "priority": priority,
            "key": key,
            "payload": payload.model_dump_json(),
            "context": _captured_context(requested_by),
            "delay": delay,
        }
        while True:
            if (id := await self._session.scalar(ENQUEUE, values)) is not None:
                return UUID(str(id))
            # Another transaction may finish that job between the two statements, which frees its key.
            if (id := await self._session.scalar(UNFINISHED, {"name": job.name, "key": key})) is not None:
                return UUID(str(id))


async def once(session: Session, run: Run[Any], name: str = "") -> bool:
    """Whether an effect of this job is still to be had, which is recorded in the transaction of `session`.

    The first attempt that commits is the only one for which this is true: a second waits for the first, and returns
    False if that has committed. A job with several effects gives each a `name`.
    """
    return await session.scalar(MARK, {"id": run.id, "name": name}) is not None


@dataclass(frozen=True, slots=True)
class JobStatus:
    id: UUID
    name: str
    state: Literal["queued", "running", "succeeded", "dead", "cancelled"]
    percent: int
    attempts: int
    reason: str | None
    """Why it is dead, or why the last attempt failed. It may contain what the service does not show to its clients."""
    created_at: datetime
    finished_at: datetime | None
    requested_by: str | None = None


STATUS = Query(
    JobStatus,
    select(
        *(JOBS.c[name] for name in JobStatus.__slots__ if name in JOBS.c),
        literal_column("context ->> 'requested_by'", Text).label("requested_by"),
    ).where(JOBS.c.id == bindparam("id")),
)


class JobQueries:
    def __init__(self, db: Readable) -> None:
        self._db = db

    async def get(self, id: UUID) -> JobStatus | None:
        return await self._db.first(STATUS, id=id)


def _captured_context(requested_by: str | None) -> str:
    """What connects a job to the request that enqueued it: its id, that of its trace, and who sent it."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if id := request_id.get():
        carrier["request_id"] = id
    if requested_by is not None:
        carrier["requested_by"] = requested_by
    return orjson.dumps(carrier).decode()
