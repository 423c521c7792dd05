"""What the settings say of the caches holds: where responses and values are kept, and what a response says of it."""

from typing import Any

import pytest
from fastapi import APIRouter
from httpx import AsyncClient
from pydantic import RootModel, SecretStr

from app.dependencies import CacheDep
from app.main import create_app
from app.routers import ROUTERS
from app.settings import Settings
from plinth.cache import Tag, cached_response
from plinth.http import FastRoute
from plinth.http.docs import openapi
from plinth.testing.client import serve

CLOCK = Tag("clock")


class Ticks(RootModel[int]):
    pass


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The app has an endpoint whose response is cached, and one that remembers a value; each adds what it loads."""
    router = APIRouter(prefix="/clock", route_class=FastRoute)
    loads: list[str] = []

    async def count() -> Ticks:
        loads.append("value")
        return Ticks(len(loads))

    @router.get("/response")
    @cached_response(ttl=60.0, tags=[CLOCK])
    async def get_response() -> str:
        loads.append("response")
        return "the same"

    @router.get("/value")
    async def get_value(cache: CacheDep) -> Ticks:
        return await cache.remember("clock", 60.0, count, schema=Ticks, tags=[CLOCK])

    monkeypatch.setattr("app.main.ROUTERS", (*ROUTERS, router))
    return loads


async def twice(client: AsyncClient) -> list[Any]:
    return [await client.get(path) for path in ("/clock/response", "/clock/value") for _ in range(2)]


async def test_production_does_not_say_where_a_response_is_from(settings: Settings, loads: list[str]) -> None:
    production = settings.model_copy(
        update={
            "app": settings.app.model_copy(update={"env": "production", "secret_key": SecretStr("k" * 32)}),
            "cache": settings.cache.model_copy(update={"namespace": "production"}),
        }
    )
    async with serve(create_app(production)) as service, service.client() as client:
        await service.state["cache"].invalidate(CLOCK)
        answers = await twice(client)
    assert not any("X-Cache" in answer.headers for answer in answers)
    assert "Age" in answers[1].headers
    assert loads == ["response", "value"]


@pytest.mark.parametrize(("responses", "cached"), [("memory", True), (True, False)])
async def test_without_redis_nothing_is_kept_unless_asked_for(
    settings: Settings, loads: list[str], responses: bool | str, cached: bool
) -> None:
    alone = {
        "redis": settings.redis.model_copy(update={"url": None}),
        "cache": settings.cache.model_copy(update={"responses": responses}),
        "web_concurrency": 1,  # one worker does not know of other instances
    }
    async with serve(create_app(settings.model_copy(update=alone))) as service, service.client() as client:
        answers = await twice(client)
        unchanged = await client.get("/clock/response", headers={"If-None-Match": answers[0].headers["ETag"]})
    assert loads == (["response", "value"] if cached else ["response", "response", "value", "value", "response"])
    assert [answer.json() for answer in answers[2:]] == ([2, 2] if cached else [3, 4])
    assert ("Age" in answers[1].headers, answers[1].headers["X-Cache"]) == (
        (True, "hit") if cached else (False, "bypass")
    )
    assert (unchanged.status_code, answers[1].headers["Cache-Control"]) == (304, "public, no-cache")


def test_every_change_documents_its_condition(settings: Settings) -> None:
    for path in openapi(create_app(settings))["paths"].values():
        for method in path.keys() & {"put", "patch", "delete"}:
            assert "If-Match" in {parameter["name"] for parameter in path[method]["parameters"]}
            assert {"400", "412", "428"} <= path[method]["responses"].keys()
