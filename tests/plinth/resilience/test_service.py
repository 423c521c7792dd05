"""Deadlines, outgoing calls and processes as the service has them."""

import asyncio
import runpy
from typing import Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, FastAPI
from httpx import AsyncClient, Response

from app.dependencies import OutgoingDep, ProcessesDep, ReadsDep, SessionDep
from app.main import create_app
from app.settings import Settings
from plinth.cache import cached_response
from plinth.errors import DeadlineError
from plinth.http import FastRoute
from plinth.resilience import remaining
from plinth.testing.client import Service, serve
from plinth.testing.environment import ROOT
from tests.plinth.resilience import work

SECONDS = 0.2


class Gate:
    """What an endpoint waits for."""

    def __init__(self) -> None:
        self.entered = 0
        self.loads = asyncio.Event()
        self.opened = asyncio.Event()


def router_of(gate: Gate) -> APIRouter:
    router = APIRouter(route_class=FastRoute)

    @router.get("/plain")
    async def plain(reads: ReadsDep) -> int:
        gate.entered += 1
        await gate.opened.wait()
        return gate.entered

    @router.post("/transaction")
    async def transaction(session: SessionDep) -> int:
        await gate.opened.wait()
        return 1

    @router.get("/cached")
    @cached_response(ttl=60.0, tags=[])
    async def cached(reads: ReadsDep) -> int:
        gate.entered += 1
        gate.loads.set()
        await gate.opened.wait()
        return gate.entered

    @router.get("/left")
    async def left() -> float | None:
        return remaining()

    @router.get("/square")
    async def square(processes: ProcessesDep, outgoing: OutgoingDep) -> list[Any]:
        return [await processes.run(work.square, 5), outgoing.timeout.read]

    return router


def app_of(settings: Settings, gate: Gate, monkeypatch: pytest.MonkeyPatch, **http: Any) -> FastAPI:
    monkeypatch.setattr("app.main.ROUTERS", [router_of(gate)])
    own = settings.cache.model_copy(update={"namespace": f"test-{uuid4()}"})  # nothing that another test has cached
    return create_app(settings.model_copy(update={"http": settings.http.model_copy(update=http), "cache": own}))


def is_deadline(response: Response) -> bool:
    return response.status_code == 504 and response.json()["detail"] == str(DeadlineError())


@pytest.mark.parametrize("path", ["/plain", "/transaction"])
async def test_a_request_that_takes_too_long_passes_through_all_middleware(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    app = app_of(settings, Gate(), monkeypatch, deadline_seconds=SECONDS)
    async with serve(app) as service, service.client() as client:
        response = await client.request("POST" if path == "/transaction" else "GET", path)
    assert is_deadline(response)
    assert response.json()["request_id"] == response.headers["X-Request-ID"]
    assert "X-Content-Type-Options" in response.headers


async def get_together(client: AsyncClient, path: str) -> list[Response]:
    return [*await asyncio.gather(*[client.get(path) for _ in range(5)])]


async def test_all_who_wait_for_a_cached_load_receive_its_504_and_the_next_load_is_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    app = app_of(settings, gate, monkeypatch, deadline_seconds=SECONDS)
    async with serve(app) as service, service.client() as client:
        assert all(map(is_deadline, await get_together(client, "/cached")))
        assert gate.entered == 1
        gate.opened.set()
        assert [response.json() for response in await get_together(client, "/cached")] == [2] * 5


async def test_who_waits_for_a_cached_load_for_a_shorter_time_ends_it_for_no_one_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with serve(app_of(settings, gate, monkeypatch)) as service, service.client() as client:
        patient = asyncio.create_task(client.get("/cached"))
        await asyncio.wait_for(gate.loads.wait(), 30)
        hurried = await client.get("/cached", headers={"X-Request-Timeout": "0.05"})
        assert is_deadline(hurried)
        assert hurried.json()["request_id"] == hurried.headers["X-Request-ID"]
        gate.opened.set()
        assert (await patient).json() == 1
        kept = await client.get("/cached", headers={"X-Request-Timeout": "0.05"})
        assert (kept.json(), kept.headers["X-Cache"]) == (1, "hit")


async def test_the_one_who_loads_a_cached_response_sets_the_time_of_no_one_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with serve(app_of(settings, gate, monkeypatch)) as service, service.client() as client:
        hurried = asyncio.create_task(client.get("/cached", headers={"X-Request-Timeout": "0.3"}))
        await asyncio.wait_for(gate.loads.wait(), 30)
        patient = asyncio.create_task(client.get("/cached"))
        assert is_deadline(await hurried)
        gate.opened.set()
        assert ((await patient).json(), gate.entered) == (1, 1)


async def test_a_wrong_timeout_is_refused_whatever_the_cache_has(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    gate.opened.set()
    async with serve(app_of(settings, gate, monkeypatch)) as service, service.client() as client:
        for _ in range(2):
            assert (await client.get("/cached", headers={"X-Request-Timeout": "soon"})).status_code == 400
            assert (await client.get("/cached")).json() == 1


async def test_browsers_of_other_origins_may_set_the_deadline(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cors = settings.cors.model_copy(update={"origins": "https://shop.example"})
    app = app_of(settings.model_copy(update={"cors": cors}), Gate(), monkeypatch)
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    async with serve(app) as service, service.client() as client:
        response = await client.options(
            "/left", headers={**asked, "Access-Control-Request-Headers": "x-request-timeout"}
        )
    assert response.status_code == 200


async def left(service: Service) -> float | None:
    async with service.client() as client:
        response = await client.get("/left")
        seconds: float | None = response.json()
        return seconds


async def test_the_deadline_is_a_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(app_of(settings, Gate(), monkeypatch)) as service:
        assert 29 < (await left(service) or 0) < 30.000001
    async with serve(app_of(settings, Gate(), monkeypatch, deadline_seconds=0.0)) as service:
        assert await left(service) is None
    async with (
        serve(app_of(settings, Gate(), monkeypatch, deadline_max_seconds=5.0)) as service,
        service.client({"X-Request-Timeout": "40"}) as client,
    ):
        assert 4 < (await client.get("/left")).json() < 5.001


async def test_endpoints_have_the_client_and_the_processes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(app_of(settings, Gate(), monkeypatch)) as service, service.client() as client:
        assert (await client.get("/square")).json() == [25, settings.outgoing.timeout_seconds]


def test_a_process_of_a_service_that_python_runs_as_a_module_can_import_it() -> None:
    """anyio imports `__main__` of the parent under this name; without the guard, the command would run in it."""
    assert "app" in runpy.run_path(str(ROOT / "app/__main__.py"), run_name="__mp_main__")
