from uuid import UUID

from fastapi import APIRouter

from app.access import PrincipalDep
from app.dependencies import JobReaderDep
from app.schemas.jobs import JobRead
from plinth.http import FastRoute, problem_responses

router = APIRouter(prefix="/api/jobs", tags=["jobs"], route_class=FastRoute)


@router.get("/{id}", responses=problem_responses(404))
async def get_job(id: UUID, principal: PrincipalDep, jobs: JobReaderDep) -> JobRead:
    """Return how far a job is, to the user who has requested it and to administrators."""
    return await jobs.get(id, principal)
