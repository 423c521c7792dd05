"""Reports: the summary at once, or mailed by a job that its client can follow."""

import email
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from httpx import AsyncClient

from app.jobs import LOW_STOCK_REPORT, LowStockReport
from app.settings import Settings
from plinth.database import Database
from plinth.jobs import Jobs
from plinth.testing.client import Service
from tests.app.factories import create_category, create_product
from tests.app.worker import finished, working


@pytest.fixture
def working_settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"mail": settings.mail.model_copy(update={"folder": tmp_path})})


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
