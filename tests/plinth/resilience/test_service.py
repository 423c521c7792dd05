"""Deadlines, outgoing calls and processes as the service has them."""

import asyncio
import runpy
from typing import Any

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
    return create_app(settings.model_copy(update={"http": settings.http.model_copy(update=http)}))


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


async def left(service: Service) -> float | None:
    async with service.client() as client:
        response = await client.get("/left")
        seconds: float | None = response.json()
        return seconds


async def test_the_deadline_is_a_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(app_of(settings, Gate(), monkeypatch)) as service:
        assert 29 < (await left(service) or 0) <= 30
    async with serve(app_of(settings, Gate(), monkeypatch, deadline_seconds=0.0)) as service:
        assert await left(service) is None


async def test_endpoints_have_the_client_and_the_processes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(app_of(settings, Gate(), monkeypatch)) as service, service.client() as client:
        assert (await client.get("/square")).json() == [25, settings.outgoing.timeout_seconds]


def test_a_process_of_a_service_that_python_runs_as_a_module_can_import_it() -> None:
    """anyio imports `__main__` of the parent under this name; without the guard, the command would run in it."""
    assert "app" in runpy.run_path(str(ROOT / "app/__main__.py"), run_name="__mp_main__")
