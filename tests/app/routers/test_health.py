import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from httpx import AsyncClient
from pydantic import SecretStr
from redis.exceptions import RedisError
from sqlalchemy.engine import make_url

from app.main import create_app
from app.services.health import HealthService
from app.settings import Settings
from plinth.testing.client import serve
from plinth.testing.wire import WirePostgres

NOWHERE = "127.0.0.1:1"


async def test_a_process_that_answers_is_alive(client: AsyncClient) -> None:
    answer = await client.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_ready_tells_the_time_of_each_check(client: AsyncClient) -> None:
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ready"
    for check in (body["database"], body["cache"]):
        assert check["status"] == "up"
        assert 0 < check["seconds"] < 1


async def test_without_a_cache_it_is_ready(settings: Settings) -> None:
    none = settings.redis.model_copy(update={"url": None})
    async with serve(create_app(settings.model_copy(update={"redis": none}))) as service, service.client() as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert answer.json()["cache"]["status"] == "off"


async def test_without_the_cache_it_is_degraded_but_ready(settings: Settings) -> None:
    away = settings.redis.model_copy(update={"url": SecretStr(f"redis://{NOWHERE}/0")})
    async with serve(create_app(settings.model_copy(update={"redis": away}))) as service, service.client() as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["cache"]["status"] == "down"


async def test_without_the_database_it_is_not_ready(settings: Settings) -> None:
    server = make_url(settings.database.url.get_secret_value())
    wire = WirePostgres(server.host or "", server.port or 5432)
    async with AsyncExitStack() as stack:
        async with wire:
            through = settings.database.model_copy(update={"url": wire.through(settings.database.url)})
            app = create_app(settings.model_copy(update={"database": through}))
            service = await stack.enter_async_context(serve(app))
            client = await stack.enter_async_context(service.client())
            assert (await client.get("/health/ready")).status_code == 200
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert answer.json()["database"]["status"] == "down"
        assert (await client.get("/health/live")).status_code == 200


async def test_while_draining_it_is_not_ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.dependencies.is_draining", lambda: True)
    async with serve(create_app(settings)) as service, service.client() as client:
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert (await client.get("/health/live")).status_code == 200


async def test_a_check_that_never_ends_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.health.CHECK_SECONDS", 0.01)

    class Silent:
        async def ping(self) -> None:
            await asyncio.Event().wait()

    silent: Any = Silent()
    async with asyncio.timeout(10):
        readiness = await HealthService(silent, silent, draining=False).readiness()
    assert (readiness.status, readiness.database.status, readiness.cache.status) == ("unavailable", "down", "down")


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("closed"), ValueError(), RedisError()])
async def test_whatever_a_check_raises_the_probe_answers(settings: Settings, error: Exception) -> None:
    class Failing:
        async def ping(self) -> None:
            raise error

    failing: Any = Failing()
    async with serve(create_app(settings)) as service:
        for database, redis, status in (
            (service.state["database"], failing, "degraded"),
            (failing, None, "unavailable"),
        ):
            readiness = await HealthService(database, redis, draining=False).readiness()
            assert readiness.status == status
