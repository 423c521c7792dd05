"""Deprecated routes say so in every response, whichever route class, middleware or cache answers."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from httpx import ASGITransport, AsyncClient, Response
from starlette.types import Receive, Scope, Send

from app.main import middleware
from app.settings import Settings
from plinth.cache import Cache, CachedRoutes, Tag, cached_response
from plinth.cache.stores import Memory, MemoryStore
from plinth.errors import NotFoundError
from plinth.http import FastRoute, deprecated_route, exception_handlers, problem_responses
from plinth.http.docs import openapi

SINCE, SUNSET = date(2027, 1, 31), date(2027, 7, 1)
LINK = "https://example.com/upgrade?to=2"
DEPRECATED = ["@1801353600", "Thu, 01 Jul 2027 00:00:00 GMT", f'<{LINK}>; rel="deprecation"']
THING = Tag("thing:{id}")


def things(route_class: type[APIRoute], calls: list[int]) -> APIRouter:
    router = APIRouter(prefix="/things", route_class=route_class)

    @router.get("/{id}", responses=problem_responses(404))
    @cached_response(ttl=60, tags=[THING], missing_ttl=60)
    @deprecated_route(since=SINCE, sunset=SUNSET, link=LINK)
    async def get_thing(id: int) -> str:
        calls.append(id)
        if id > 9:
            raise NotFoundError("thing", id)
        return "a" * id * 1000

    @deprecated_route(since=SINCE, sunset=SUNSET, link=LINK)  # either order
    @router.put("/{id}")
    async def put_thing(id: int) -> str:
        return "a" * (1 // id)

    @router.post("")
    async def add_thing() -> str:
        return "a"

    return router


class Api:
    def __init__(self, route_class: type[APIRoute], cache: Cache) -> None:
        self.calls: list[int] = []
        settings, routes = Settings(_env_file=None, cache={"responses": "memory"}), CachedRoutes()
        self.app = FastAPI(
            middleware=[*middleware(settings, routes)], exception_handlers=exception_handlers, openapi_url=None
        )
        outer = APIRouter(prefix="/api")
        outer.include_router(things(route_class, self.calls))
        self.app.include_router(outer)
        routes.add_all_of(self.app)
        self._cache = cache
        self.client = AsyncClient(transport=ASGITransport(self, raise_app_exceptions=False), base_url="http://test")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "state": {"cache": self._cache}}, receive, send)


@pytest.fixture(params=[APIRoute, FastRoute])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    cache = Cache(MemoryStore(Memory(max_entries=100, max_bytes=2**20)))
    api = Api(request.param, cache)
    async with api.client:
        yield api
    await cache.close()


def deprecation(response: Response) -> list[str | None]:
    return [response.headers.get(name) for name in ("Deprecation", "Sunset", "Link")]


async def test_loads_and_hits_of_the_cache_say_so(api: Api) -> None:
    for was in ("miss", "hit"):
        response = await api.client.get("/api/things/2")
        assert (response.status_code, response.headers["X-Cache"], deprecation(response)) == (200, was, DEPRECATED)
    assert api.calls == [2]


async def test_a_404_of_the_route_says_so_and_one_without_a_route_does_not(api: Api) -> None:
    for was in ("miss", "hit"):
        response = await api.client.get("/api/things/10")
        assert (response.status_code, response.headers["X-Cache"], deprecation(response)) == (404, was, DEPRECATED)
    assert deprecation(await api.client.get("/api/other")) == [None] * 3


@pytest.mark.parametrize("bypassed", [False, True])
async def test_a_304_and_a_412_say_so(api: Api, bypassed: bool) -> None:
    query = "?undeclared=1" if bypassed else ""
    etag = (await api.client.get(f"/api/things/2{query}")).headers["ETag"]
    for name, value, status in (("If-None-Match", etag, 304), ("If-Match", '"other"', 412)):
        response = await api.client.get(f"/api/things/2{query}", headers={name: value})
        assert (response.status_code, deprecation(response)) == (status, DEPRECATED)
        assert response.headers["X-Cache" if status == 304 and not bypassed else "X-Request-ID"]


async def test_head_says_so(api: Api) -> None:
    for path, status in (("/api/things/2", 200), ("/api/things/2", 200), ("/api/things/10", 404)):
        response = await api.client.head(path)
        assert (response.status_code, response.content, deprecation(response)) == (status, b"", DEPRECATED)


async def test_faults_of_the_request_and_of_the_server_say_so(api: Api) -> None:
    for method, path, status in (
        ("GET", "/api/things/a", 422),
        ("PUT", "/api/things/a", 422),
        ("PUT", "/api/things/0", 500),
    ):
        response = await api.client.request(method, path)
        assert (response.status_code, deprecation(response)) == (status, DEPRECATED)


async def test_the_other_routes_say_nothing(api: Api) -> None:
    assert deprecation(await api.client.post("/api/things")) == [None] * 3
    assert (await api.client.delete("/api/things/2")).status_code == 405


async def test_the_openapi_document_shows_it(api: Api) -> None:
    paths = openapi(api.app)["paths"]
    for method in ("get", "put"):
        operation = paths["/api/things/{id}"][method]
        assert (operation["deprecated"], operation["x-sunset"]) == (True, "2027-07-01")
    assert "deprecated" not in paths["/api/things"]["post"]


def test_the_dates_are_the_instants_that_are_meant() -> None:
    assert datetime.fromtimestamp(int(DEPRECATED[0][1:]), UTC) == datetime(2027, 1, 31, tzinfo=UTC)
    assert parsedate_to_datetime(DEPRECATED[1]) == datetime(2027, 7, 1, tzinfo=UTC)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="The sunset 2027-01-31 is before 2027-07-01, when the route is deprecated"):
        deprecated_route(since=SUNSET, sunset=SINCE)
    for link in ("", "https://example.com/a b", 'https://example.com/"', "https://example.com/\r\n", "<https://a>"):
        with pytest.raises(ValueError, match="is not a URL"):
            deprecated_route(since=SINCE, link=link)
    deprecated_route(since=SINCE, sunset=SINCE)
