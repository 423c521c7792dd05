from uuid import UUID

from app.schemas.jobs import JobRead
from plinth.errors import NotFoundError
from plinth.jobs import JobQueries


class JobReader:
    def __init__(self, jobs: JobQueries) -> None:
        self._jobs = jobs

    async def get(self, id: UUID) -> JobRead:
        job = await self._jobs.get(id)
        if job is None:
            raise NotFoundError("job", str(id))
        return JobRead.model_validate(job, from_attributes=True)
