"""What the process is made of, as its settings ask for it."""

import pytest
from httpx import AsyncClient

from app.main import app, create_app, lifespan
from app.settings import Settings
from plinth.testing.client import serve
from plinth.testing.resources import read_routes
from tests.app.resources import RESOURCES


async def test_docs_and_schema_are_served_only_where_switched_on(settings: Settings) -> None:
    for switched_on, status in ((True, 200), (False, 404)):
        http = settings.http.model_copy(update={"docs": switched_on})
        async with serve(create_app(settings.model_copy(update={"http": http}))) as service, service.client() as client:
            for path in ("/docs", "/openapi.json"):
                assert (await client.get(path)).status_code == status


async def test_head_works_on_every_get(client: AsyncClient) -> None:
    await RESOURCES.create_all(client)
    for url in (url for path in read_routes(app) for url in RESOURCES.urls(path)):
        get, head = await client.get(url), await client.head(url)
        assert (head.status_code, head.content) == (get.status_code, b""), url
        assert {*head.headers} == {*get.headers}
        assert head.headers["Content-Type"] == get.headers["Content-Type"]


async def test_too_many_connections_are_warned_of_at_the_start(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(create_app(settings)):
        assert "raise max_connections" not in caplog.text
    async with serve(create_app(settings.model_copy(update={"web_concurrency": 10_000}))):
        assert "10000 workers may open" in caplog.text


async def test_the_connections_of_the_queue_count_too(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    jobs = settings.job.model_copy(update={"processes": 256})
    each = settings.database.pool_size + settings.database.read_pool_size + 2
    async with lifespan(None, settings.model_copy(update={"job": jobs})):
        assert f"256 workers may open {256 * each} connections" in caplog.text


async def test_the_name_is_the_title(settings: Settings) -> None:
    named = settings.app.model_copy(update={"name": "Shop"})
    async with serve(create_app(settings.model_copy(update={"app": named}))) as service, service.client() as client:
        assert (await client.get("/openapi.json")).json()["info"]["title"] == "Shop"
