"""What a worker says to PostgreSQL: claim, extend, settle, and take back what a dead worker left.

A claim is a lease: a random token that only the attempt has which it was made for. An attempt whose lease has expired
and was taken back, because its worker was silent for too long, can settle nothing any more.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg

LEASE = timedelta(seconds=15)
MAX_REASON_CHARACTERS = 1000

# Each queue and each priority has a range of the index of its own, so that no claim reads past jobs that wait for
# another time or another worker. Those of unknown names are left to workers of another version.
CLAIM = """
    WITH picked AS MATERIALIZED (
        SELECT found.id
        FROM unnest($1::text[]) AS queues (queue)
        CROSS JOIN (VALUES (1::smallint), (0::smallint), (-1::smallint)) AS priorities (priority)
        CROSS JOIN LATERAL (
            SELECT id, run_at FROM plinth_jobs
            WHERE state = 'queued' AND queue = queues.queue AND priority = priorities.priority AND run_at <= now()
                AND name = ANY ($2::text[])
            ORDER BY run_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
        ) AS found
        ORDER BY priorities.priority DESC, found.run_at LIMIT $3
    )
    UPDATE plinth_jobs AS jobs
    SET state = 'running', attempts = attempts + 1, lease = gen_random_uuid(), leased_until = now() + $4::interval,
        percent = 0
    FROM picked WHERE jobs.id = picked.id
    RETURNING jobs.id, name, attempts AS attempt, lease, payload, context
"""
EXTEND = """
    UPDATE plinth_jobs AS jobs SET leased_until = now() + $3::interval
    FROM unnest($1::uuid[], $2::uuid[]) AS held (id, lease)
    WHERE jobs.id = held.id AND jobs.lease = held.lease
    RETURNING jobs.lease, cancel_requested_at IS NOT NULL AS is_cancelled
"""
REPORT = "UPDATE plinth_jobs AS jobs SET percent = $3 WHERE id = $1 AND lease = $2"
# What was cancelled meanwhile is not tried again.
SETTLE = """
    UPDATE plinth_jobs AS jobs
    SET state = CASE WHEN held.state = 'queued' AND cancel_requested_at IS NOT NULL THEN 'cancelled'
            ELSE held.state END,
        finished_at = CASE WHEN held.state = 'queued' AND cancel_requested_at IS NULL THEN NULL ELSE now() END,
        run_at = CASE WHEN held.state = 'queued' THEN now() + held.pause ELSE run_at END,
        percent = CASE WHEN held.state = 'succeeded' THEN 100 ELSE percent END,
        reason = held.reason, attempts = attempts - held.refund, lease = NULL, leased_until = NULL
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::interval[], $6::int[])
        AS held (id, lease, state, reason, pause, refund)
    WHERE jobs.id = held.id AND jobs.lease = held.lease
"""
TAKE_BACK = """
    UPDATE plinth_jobs AS jobs
    SET state = CASE WHEN cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END,
        finished_at = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE now() END,
        reason = 'Its worker stopped extending the lease.', lease = NULL, leased_until = NULL
    WHERE id IN (
        SELECT id FROM plinth_jobs WHERE state = 'running' AND leased_until < now()
        ORDER BY leased_until LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
    )
"""
GIVE_UP_UNKNOWN = """
    UPDATE plinth_jobs AS jobs
    SET state = 'dead', finished_at = now(), reason = 'No worker of its queue has a task for it.'
    WHERE id IN (
        SELECT id FROM plinth_jobs
        WHERE state = 'queued' AND queue = ANY ($1::text[]) AND NOT name = ANY ($2::text[])
            AND run_at < now() - $3::interval
        LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
    )
"""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    id: UUID
    name: str
    attempt: int
    lease: UUID
    payload: str
    context: str


@dataclass(frozen=True, slots=True)
class Outcome:
    claim: Claim
    state: Literal["queued", "succeeded", "dead", "cancelled"]
    reason: str | None = None
    pause_seconds: float = 0.0
    is_refunded: bool = False
    """Whether the attempt does not count: it was ended by no fault of its own."""
    error: Exception | None = None
    """What the task raised."""


class Claims:
    """The statements of one worker, one at a time on its connection."""

    def __init__(self, connection: asyncpg.Connection, queues: Sequence[str], names: Sequence[str]) -> None:
        self._connection = connection
        self._scope = [*queues], [*names]
        self._lock = asyncio.Lock()

    async def claim(self, most: int) -> list[Claim]:
        async with self._lock:
            return [Claim(*row) for row in await self._connection.fetch(CLAIM, *self._scope, most, LEASE)]

    async def extend(self, claims: Sequence[Claim]) -> dict[UUID, bool]:
        """The leases that are still held, each with whether the job was cancelled."""
        ids, leases = [claim.id for claim in claims], [claim.lease for claim in claims]
        async with self._lock:
            return dict(await self._connection.fetch(EXTEND, ids, leases, LEASE))

    async def report(self, claim: Claim, percent: int) -> None:
        async with self._lock:
            await self._connection.execute(REPORT, claim.id, claim.lease, percent)

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        rows = [
            (
                outcome.claim.id,
                outcome.claim.lease,
                outcome.state,
                outcome.reason and storable(outcome.reason),
                timedelta(seconds=outcome.pause_seconds),
                int(outcome.is_refunded),
            )
            for outcome in outcomes
        ]
        async with self._lock:
            await self._connection.execute(SETTLE, *map(list, zip(*rows, strict=True)))

    async def take_back(self) -> bool:
        """Queue again what workers have claimed that have been silent for longer than their lease, if there is any."""
        async with self._lock:
            return str(await self._connection.execute(TAKE_BACK)) != "UPDATE 0"

    async def give_up_unknown(self, after: timedelta) -> None:
        async with self._lock:
            await self._connection.execute(GIVE_UP_UNKNOWN, *self._scope, after)

    async def run(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._lock:
            return list(await self._connection.fetch(statement, *arguments))


def storable(text: str) -> str:
    """PostgreSQL refuses NUL and lone surrogates in text, and one such reason would keep others from being stored."""
    clean = text.replace("\0", "").encode(errors="replace").decode()
    return clean[:MAX_REASON_CHARACTERS]
