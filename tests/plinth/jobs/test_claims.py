"""The statements of a worker: an attempt without its lease changes nothing, what is cancelled is not repeated."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from plinth.jobs.claims import Claim, Claims, Outcome
from tests.plinth.jobs.support import Queue


@pytest.fixture
async def claims(queue: Queue, database_url: str) -> AsyncIterator[Claims]:
    connection = await asyncpg.connect(database_url)
    yield Claims(connection, [queue.name], [queue.job().name])
    await connection.close()


async def claimed(queue: Queue, claims: Claims) -> Claim:
    await queue.enqueue()
    [claim] = await claims.claim(10)
    return claim


@pytest.mark.parametrize("state", ["succeeded", "queued", "dead", "cancelled"])
async def test_nothing_is_settled_extended_or_reported_without_the_lease(
    queue: Queue, claims: Claims, state: str
) -> None:
    claim = await claimed(queue, claims)
    await queue.onlooker.execute("UPDATE plinth_jobs SET lease = $2 WHERE id = $1", claim.id, uuid4())
    before = await queue.one()
    await claims.settle([Outcome(claim, state)])  # type: ignore[arg-type]
    assert await claims.extend([claim]) == {}
    await claims.report(claim, 50)
    assert await queue.one() == before


async def test_many_outcomes_are_settled_each_by_itself(queue: Queue, claims: Claims) -> None:
    for _ in range(4):
        await queue.enqueue()
    one, two, three, four = await claims.claim(10)
    assert await claims.claim(10) == []
    await claims.settle(
        [
            Outcome(one, "succeeded"),
            Outcome(two, "dead", "why"),
            Outcome(three, "queued", "later", pause_seconds=60),
            Outcome(four, "queued", "given back", is_refunded=True),
        ]
    )
    rows = {row["id"]: row for row in await queue.jobs()}
    assert [
        (rows[claim.id]["state"], rows[claim.id]["reason"], rows[claim.id]["attempts"])
        for claim in (one, two, three, four)
    ] == [
        ("succeeded", None, 1),
        ("dead", "why", 1),
        ("queued", "later", 1),
        ("queued", "given back", 0),
    ]
    assert [claim.id for claim in await claims.claim(10)] == [four.id]


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_cancelled_job_whose_attempt_ends_is_not_queued_again(
    queue: Queue, claims: Claims, is_running: bool
) -> None:
    claim = await claimed(queue, claims)
    await queue.onlooker.execute(
        "UPDATE plinth_jobs SET cancel_requested_at = now(), leased_until = now() - interval '1 s' WHERE id = $1",
        claim.id,
    )
    if is_running:
        await claims.settle([Outcome(claim, "queued", "failed")])
    else:  # its worker was killed
        assert await claims.take_back()
    job = await queue.one()
    assert (job["state"], job["lease"]) == ("cancelled", None)
    assert job["finished_at"] is not None
    assert not await claims.take_back()


async def test_what_succeeded_before_it_could_be_cancelled_has_succeeded(queue: Queue, claims: Claims) -> None:
    claim = await claimed(queue, claims)
    await queue.onlooker.execute("UPDATE plinth_jobs SET cancel_requested_at = now() WHERE id = $1", claim.id)
    await claims.settle([Outcome(claim, "succeeded")])
    assert await queue.states() == ["succeeded"]
