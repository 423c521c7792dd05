"""Imports of many rows, which a job carries out."""

import asyncpg
import pytest
from httpx import AsyncClient

from app.dependencies import get_import_service, get_invalidate
from app.services import imports
from app.settings import Settings
from plinth.database import Session
from plinth.jobs import Jobs
from plinth.testing.client import Service
from tests.app.factories import create_category, create_product, product_data
from tests.app.routers.test_imports import STORED, places, rows_of, send
from tests.app.worker import finished, working

ROWS, BATCH = 50, 20


@pytest.fixture(autouse=True)
async def few(monkeypatch: pytest.MonkeyPatch, client: AsyncClient) -> None:
    """More than 10 rows are many, and 20 are a batch."""
    monkeypatch.setattr(imports, "DIRECT_ROWS", 10)
    monkeypatch.setattr(imports, "BATCH", BATCH)
    await create_category(client)


async def resume(service: Service, session: Session, id: int) -> int:
    """As the task does."""
    invalidate = await get_invalidate(session, service.state["cache"])
    return await (await get_import_service(session, invalidate, Jobs(session))).resume(id)


@pytest.mark.parametrize("errors", ["abort", "skip"])
async def test_many_rows_are_accepted_and_a_job_stores_them(
    client: AsyncClient, onlooker: asyncpg.Connection, settings: Settings, errors: str
) -> None:
    answer = await send(client, rows_of(ROWS), errors=errors)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["state"], answer.json()["rows"], answer.json()["done"]) == ("running", ROWS, 0)
    assert await onlooker.fetch(STORED) == []
    async with working(settings):
        body = await finished(client, answer.headers["Location"])
    assert (body["state"], body["done"], body["failed"], body["errors"]) == ("done", ROWS, 0, [])
    assert [row["sku"] for row in await onlooker.fetch(STORED)] == [row["sku"] for row in rows_of(ROWS)]
    assert await onlooker.fetch("SELECT * FROM product_import_rows") == []


async def test_a_job_shows_its_progress_and_goes_on_where_a_killed_one_stopped(
    client: AsyncClient, service: Service, onlooker: asyncpg.Connection, settings: Settings
) -> None:
    rows = [*rows_of(ROWS), product_data(sku="SKU-000049"), product_data(sku="", stock=-1)]
    answer = await send(client, rows, errors="skip")
    location, id = answer.headers["Location"], answer.json()["id"]
    sessions = service.state["database"].sessions
    page = "/api/products?limit=100"
    assert [(await client.get(page)).json()["items"] for _ in range(2)] == [[], []]  # the second is cached
    async with sessions.begin() as session:
        assert await resume(service, session, id) == 100 * (BATCH + 1) // (ROWS + 2)
    assert len((await client.get(page)).json()["items"]) == BATCH
    with pytest.raises(LookupError):
        async with sessions.begin() as session:
            await resume(service, session, id)
            raise LookupError("killed before the commit")
    body = (await client.get(location)).json()
    assert (body["state"], body["done"], body["failed"]) == ("running", BATCH, 1)
    async with working(settings):
        body = await finished(client, location)
    assert (body["state"], body["done"], body["failed"]) == ("done", ROWS, 2)
    assert places(body["errors"]) == ["#/52/sku", "#/52/stock", "#/51/sku"]
    before = await onlooker.fetch(STORED)
    async with sessions.begin() as session:  # the job runs again, though it has succeeded
        assert await resume(service, session, id) == 100
    assert await onlooker.fetch(STORED) == before
    assert {row["version"] for row in before} == {1}
    assert (await client.get(location)).json() == body


async def test_a_job_stores_all_rows_or_none(
    client: AsyncClient, onlooker: asyncpg.Connection, settings: Settings
) -> None:
    await create_product(client, sku="SKU-000049")
    answer = await send(client, rows_of(ROWS))
    assert answer.status_code == 202
    async with working(settings):
        body = await finished(client, answer.headers["Location"])
    assert (body["state"], body["done"], body["failed"], places(body["errors"])) == ("failed", 0, 1, ["#/50/sku"])
    assert [row["sku"] for row in await onlooker.fetch(STORED)] == ["SKU-000049"]
    assert await onlooker.fetch("SELECT * FROM product_import_rows") == []


async def test_errors_of_the_rows_themselves_are_answered_at_once(client: AsyncClient) -> None:
    answer = await send(client, rows_of(ROWS, stock=-1))
    assert (answer.status_code, len(answer.json()["errors"])) == (422, ROWS)


async def test_batches_are_as_one(client: AsyncClient, onlooker: asyncpg.Connection, settings: Settings) -> None:
    """A sku that is in many rows is the first one's, wherever the border of a batch would be."""
    rows = [product_data(sku=f"SKU-{number % 7}", stock=number) for number in range(1, 120)]
    answer = await send(client, rows, errors="skip", mode="upsert")
    async with working(settings):
        body = await finished(client, answer.headers["Location"])
    assert (body["done"], body["failed"]) == (7, 112)
    assert sorted(row["stock"] for row in await onlooker.fetch(STORED)) == [1, 2, 3, 4, 5, 6, 7]
