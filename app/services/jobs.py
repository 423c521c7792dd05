from uuid import UUID

from app.schemas.jobs import JobRead
from app.scopes import USERS_ADMIN
from plinth.errors import NotFoundError
from plinth.jobs import JobQueries
from plinth.security import Principal


class JobReader:
    def __init__(self, jobs: JobQueries) -> None:
        self._jobs = jobs

    async def get(self, id: UUID, principal: Principal) -> JobRead:
        """Raises NotFoundError, also for a job that another user has requested."""
        job = await self._jobs.get(id)
        if job is None or not (job.requested_by == principal.owner or USERS_ADMIN in principal.scopes):
            raise NotFoundError("job", str(id))
        return JobRead.model_validate(job, from_attributes=True)
