from uuid import UUID

from fastapi import APIRouter

from app.access import SIGNED_IN
from app.dependencies import JobReaderDep
from app.schemas.jobs import JobRead
from plinth.http import FastRoute, problem_responses

router = APIRouter(prefix="/api/jobs", tags=["jobs"], route_class=FastRoute)


@router.get("/{id}", dependencies=[SIGNED_IN], responses=problem_responses(404))
async def get_job(id: UUID, jobs: JobReaderDep) -> JobRead:
    """Return how far a job is. Its random id is known only to the client that started it."""
    return await jobs.get(id)
