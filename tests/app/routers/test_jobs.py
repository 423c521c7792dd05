"""Jobs, as clients see them, and how long they are kept."""

from uuid import uuid4

from httpx import AsyncClient

from app.jobs import PRUNE_JOBS, PruneJobs
from app.settings import Settings
from plinth.database import Database
from plinth.jobs import Jobs
from plinth.testing.client import Service
from tests.app.resources import JOB
from tests.app.worker import finished, working


async def test_a_job_shows_how_far_it_is(client: AsyncClient) -> None:
    job = (await client.get(f"/api/jobs/{JOB}")).json()
    assert job.pop("created_at")
    assert job == {"id": str(JOB), "state": "queued", "percent": 0, "attempts": 0, "finished_at": None}


async def test_a_job_that_is_unknown_is_not_found(client: AsyncClient) -> None:
    assert (await client.get(f"/api/jobs/{uuid4()}")).status_code == 404
    assert (await client.get("/api/jobs/7")).status_code == 422


async def test_old_jobs_are_pruned(client: AsyncClient, service: Service, settings: Settings) -> None:
    database: Database = service.state["database"]
    async with database.sessions.begin() as session:
        old = await Jobs(session).enqueue(PRUNE_JOBS, PruneJobs(finished_days=1000))
    async with working(settings):
        await finished(client, f"/api/jobs/{old}")
        async with database.sessions.begin() as session:
            new = await Jobs(session).enqueue(PRUNE_JOBS, PruneJobs(finished_days=0))
        await finished(client, f"/api/jobs/{new}")
    assert (await client.get(f"/api/jobs/{old}")).status_code == 404
