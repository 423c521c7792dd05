"""Reports: the summary at once, or mailed by a job that its client can follow."""

import asyncio
import email
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient

from app.jobs import LOW_STOCK_REPORT, PRUNE_JOBS, LowStockReport, PruneJobs
from app.main import create_worker
from app.settings import Settings
from plinth.database import Database
from plinth.jobs import Jobs
from plinth.jobs.status import StatusFiles
from plinth.testing.client import Service
from tests.app.factories import create_category, create_product


@pytest.fixture
def working_settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"mail": settings.mail.model_copy(update={"folder": tmp_path})})


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


def mails(folder: Path) -> list[EmailMessage]:
    return [email.message_from_bytes(file.read_bytes(), policy=default) for file in sorted(folder.glob("*.eml"))]


async def test_the_summary_is_of_all_products(client: AsyncClient) -> None:
    nothing = {"products": 0, "cheapest": None, "median": None, "dearest": None}
    assert (await client.get("/api/reports/prices")).json() == nothing
    await create_category(client)
    for number, price in enumerate(["3.00", "1.50", "3.00", "20.00"]):
        await create_product(client, sku=f"SKU-{number}", price=price)
    summary = {"products": 4, "cheapest": "1.50", "median": "3.00", "dearest": "20.00"}
    assert (await client.get("/api/reports/prices")).json() == summary


async def test_a_requested_summary_is_mailed_and_its_job_can_be_followed(
    client: AsyncClient, working_settings: Settings, tmp_path: Path
) -> None:
    await create_category(client)
    await create_product(client, price="19.90")
    answer = await client.post("/api/reports/prices")
    assert answer.status_code == 202
    location = answer.headers["Location"]
    assert location == f"/api/jobs/{answer.json()['id']}"
    queued = (await client.get(location)).json()
    assert (queued["state"], queued["percent"], queued["finished_at"]) == ("queued", 0, None)
    assert (await client.post("/api/reports/prices")).json() == answer.json()  # one at a time
    async with working(working_settings):
        job = await finished(client, location)
    assert (job["state"], job["percent"], job["attempts"]) == ("succeeded", 100, 1)
    [mail] = mails(tmp_path)
    assert (mail["Subject"], mail["To"]) == ("Prices of 1 products", "reports@localhost")
    assert mail["Message-ID"].startswith(f"<{answer.json()['id']}@")
    for part in mail.iter_parts():
        assert "19.90" in part.get_content()
    assert (await client.post("/api/reports/prices")).json() != answer.json()


async def test_products_low_in_stock_are_mailed_and_without_any_nothing_is(
    client: AsyncClient, service: Service, working_settings: Settings, tmp_path: Path
) -> None:
    await create_category(client)
    await create_product(client, sku="FULL", stock=5)
    await create_product(client, sku="LOW", stock=4)
    database: Database = service.state["database"]
    for below in (5, 4):
        async with database.sessions.begin() as session:
            id = await Jobs(session).enqueue(LOW_STOCK_REPORT, LowStockReport(below=below))
        async with working(working_settings):
            assert (await finished(client, f"/api/jobs/{id}"))["state"] == "succeeded"
    [mail] = mails(tmp_path)
    assert mail["Subject"] == "1 products are low in stock"
    assert "4 LOW" in mail.get_content()
    assert "FULL" not in mail.get_content()


async def test_old_jobs_are_pruned(client: AsyncClient, service: Service, working_settings: Settings) -> None:
    database: Database = service.state["database"]
    async with database.sessions.begin() as session:
        old = await Jobs(session).enqueue(PRUNE_JOBS, PruneJobs(finished_days=1000))
    async with working(working_settings):
        await finished(client, f"/api/jobs/{old}")
        async with database.sessions.begin() as session:
            new = await Jobs(session).enqueue(PRUNE_JOBS, PruneJobs(finished_days=0))
        await finished(client, f"/api/jobs/{new}")
    assert (await client.get(f"/api/jobs/{old}")).status_code == 404
