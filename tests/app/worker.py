"""The service's worker on the database of the tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from httpx import AsyncClient

from app.main import create_worker
from app.settings import Settings
from plinth.jobs.status import StatusFiles


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    """The service's worker, until the block ends and what it has begun is done."""
    worker = create_worker(settings)
    task = asyncio.create_task(worker.run(StatusFiles(None, 0)))
    yield
    worker.stop()
    await task


async def finished(client: AsyncClient, location: str) -> dict[str, Any]:
    """The job, once it has ended."""
    async with asyncio.timeout(30):
        while True:
            job: dict[str, Any] = (await client.get(location)).json()
            if job["finished_at"] is not None:
                return job
            await asyncio.sleep(0.01)
