"""The short way means what FastAPI means: each request is asked both ways, and the answers compared."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from plinth.errors import NotFoundError
from plinth.http import add_short_ways
from tests.plinth.http.apps import build, client

SHORT, LONG = "the short way", "FastAPI's way"


async def way(request: Request) -> str:
    return LONG if "fastapi_inner_astack" in request.scope else SHORT


WayDep = Annotated[str, Depends(way)]


class Filters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    name: str | None = Field(None, alias="called")


class Thing(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = Field(min_length=1)
    size: float | None = None


class Tagged(BaseModel):
    tags: list[str] = []


calls: list[str] = []


async def outer(name: str) -> AsyncIterator[str]:
    calls.append("open")
    try:
        yield name.upper()
    except LookupError:
        calls.append("failed")
        raise
    finally:
        calls.append("close")


OuterDep = Annotated[str, Depends(outer, scope="function")]


async def counted() -> int:
    calls.append("counted")
    return len(calls)


async def inner(outer: OuterDep, counted: Annotated[int, Depends(counted)]) -> str:
    return f"{outer}{counted}"


def add_endpoints(router: APIRouter) -> None:
    @router.get("/parameters/{id}")
    async def parameters(id: int, word: str, ratio: float = 0.5, flag: bool = False) -> list[Any]:
        return [id, word, ratio, flag]

    @router.get("/filters")
    async def filters(query: Annotated[Filters, Query()]) -> Filters:
        return query

    @router.post("/things/{id}", status_code=201)
    async def create(id: int, thing: Thing, response: Response) -> Thing:
        response.headers["Location"] = f"/things/{id}"
        response.headers.append("Link", "</a>; rel=first")
        if thing.name == "accepted":
            response.status_code = 202
        return thing

    @router.post("/small", max_body_size=20)
    async def small(thing: Thing) -> Thing:
        return thing

    @router.delete("/things/{id}", status_code=204)
    async def delete(id: int) -> None:
        if id == 0:
            raise NotFoundError("thing", id)

    @router.get("/nested/{name}")
    async def nested(
        inner: Annotated[str, Depends(inner)],
        outer: OuterDep,
        fresh: Annotated[int, Depends(counted, use_cache=False)],
        last: Annotated[int, Depends(counted)],
        fail: bool = False,
    ) -> list[Any]:
        calls.append("called")
        if fail:
            raise LookupError("a bug")
        return [inner, outer, fresh, last]

    @router.get("/own")
    async def own(response: Response) -> dict[str, str]:
        response.headers["X-Own"] = "1"
        return Response("as it is", 203, {"X-Answer": "2"})  # type: ignore[return-value]

    @router.get("/broken")
    async def broken() -> int:
        return "not a number"  # type: ignore[return-value]


def app_of(router: APIRouter) -> FastAPI:
    app = build()
    app.include_router(router)
    return app


ROUTER = APIRouter(prefix="/at")
add_endpoints(ROUTER)
SHORT_APP, LONG_APP = app_of(ROUTER), app_of(ROUTER)
add_short_ways(SHORT_APP)


async def asked(app: FastAPI, method: str, path: str, **request: Any) -> dict[str, Any]:
    calls.clear()
    async with client(app) as to:
        answer = await to.request(method, "/at" + path, **request)
    headers = [pair for pair in answer.headers.multi_items() if pair[0] not in {"x-request-id", "x-process-time"}]
    body = answer.text.replace(answer.headers["X-Request-ID"], "")
    return {"status": answer.status_code, "headers": sorted(headers), "body": body, "calls": calls[:]}


JSON = {"Content-Type": "application/json"}
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("GET", f"/parameters/{path}", {})
        for path in (
            "7?word=a",
            "7",
            "x?word=a",
            "7?word=",
            "7?word=a&word=b",
            "7?word=a%20b%2B+c&ratio=1e3&flag=yes",
            "7?word=a&ratio=many",
            "7?word=a&unknown=1",
            "7?word=%C3%A9",
            "7?word",
            "7?word=a&&flag=1",
            "7?word=a;flag=1",
            "99999999999999999999?word=a",
        )
    ),
    *(
        ("GET", f"/filters{query}", {})
        for query in (
            "",
            "?limit=5",
            "?called=a",
            "?name=a",
            "?limit=0",
            "?limit=5&limit=6",
            "?limit=",
            "?unknown=1",
            "?unknown=1&unknown=2",
        )
    ),
    *(
        ("POST", "/things/7", {"content": content, "headers": JSON})
        for content in (
            b'{"name": "a", "size": 1}',
            b'{"name": "accepted"}',
            b'{"name": ""}',
            b'{"name": "a", "unknown": 1}',
            b"",
            b" ",
            b"{",
            b"null",
            b"[]",
            b'"a"',
            b'\xef\xbb\xbf{"name": "a"}',
            b'{"name": "\xff"}',
            '{"name": "a"}'.encode("utf-16"),
            b'{"name": "\\ud800"}',
            b'{"name": "a", "size": NaN}',
            b'{"name": "a", "size": 1e999}',
            b'{"name": "a", "size": 123456789012345678901234567890}',
            b'{"name": "a", "name": "b"}',
            b'{"name": "a"} and more',
            b"[" * 100_000,
        )
    ),
    *(
        ("POST", "/things/7", {"content": b'{"name": "a"}', "headers": {"Content-Type": kind}})
        for kind in ("application/json; charset=utf-8", "application/vnd.thing+json", "APPLICATION/JSON", "text/plain")
    ),
    ("POST", "/things/7", {"content": b'{"name": "a"}'}),
    ("POST", "/things/x", {"content": b'{"name": ""}', "headers": JSON}),
    ("POST", "/small", {"content": b'{"name": "a"}', "headers": JSON}),
    ("POST", "/small", {"content": b'{"name": "aaaaaaaaaaaaa"}', "headers": JSON}),
    ("DELETE", "/things/1", {}),
    ("DELETE", "/things/0", {}),
    ("DELETE", "/things/1", {"content": b"{}", "headers": JSON}),
    ("PUT", "/things/1", {}),
    ("GET", "/things", {}),
    ("GET", "/nested/a", {}),
    ("GET", "/nested/a?fail=1", {}),
    ("GET", "/nested/a?fail=maybe", {}),
    ("GET", "/own", {}),
    ("GET", "/broken", {}),
]


@pytest.mark.parametrize(("method", "path", "more"), REQUESTS)
async def test_both_ways_answer_and_call_the_same(method: str, path: str, more: dict[str, Any]) -> None:
    assert await asked(SHORT_APP, method, path, **more) == await asked(LONG_APP, method, path, **more)


def test_both_ways_are_documented_the_same() -> None:
    assert SHORT_APP.openapi() == LONG_APP.openapi()


def sync(request: Request) -> str:
    return ""


async def until_sent() -> AsyncIterator[None]:
    yield


async def tells_its_way(way: WayDep) -> str:
    return way


async def with_model(query: Annotated[Filters, Query()], way: WayDep) -> str:
    return way


async def with_body(thing: Thing, way: WayDep) -> str:
    return way


async def with_header(way: WayDep, accept: Annotated[str, Header()]) -> str:
    return way


async def with_background_tasks(way: WayDep, tasks: BackgroundTasks) -> str:
    return way


async def with_many(query: Annotated[Tagged, Query()], way: WayDep) -> str:
    return way


async def with_two_bodies(thing: Thing, other: Annotated[int, Body()], way: WayDep) -> str:
    return way


async def with_thread(way: WayDep, sync: Annotated[str, Depends(sync)]) -> str:
    return way


async def with_open_end(way: WayDep, until_sent: Annotated[None, Depends(until_sent)]) -> str:
    return way


ONE, TWO = {"name": "a"}, {"thing": {"name": "a"}, "other": 1}


@pytest.mark.parametrize(
    ("endpoint", "options", "body", "expected"),
    [
        (tells_its_way, {}, None, SHORT),
        (with_model, {}, None, SHORT),
        (with_body, {}, ONE, SHORT),
        (tells_its_way, {"response_model_exclude_none": True}, None, LONG),
        (tells_its_way, {"max_body_size": 100}, None, LONG),
        (tells_its_way, {"dependencies": [Depends(sync)]}, None, LONG),
        (with_header, {}, None, LONG),
        (with_background_tasks, {}, None, LONG),
        (with_many, {}, None, LONG),
        (with_two_bodies, {}, TWO, LONG),
        (with_thread, {}, None, LONG),
        (with_open_end, {}, None, LONG),
    ],
)
async def test_what_is_usual_takes_the_short_way(
    endpoint: Any, options: dict[str, Any], body: Any, expected: str
) -> None:
    app = FastAPI()
    router = APIRouter(prefix="/x", dependencies=[Depends(way)])
    router.post("", **options)(endpoint)
    app.include_router(router)
    add_short_ways(app)
    async with client(app) as to:
        assert (await to.post("/x", json=body)).json() == expected


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


@pytest.fixture
def router() -> APIRouter:
    router = APIRouter(prefix="/x")
    router.get("")(tells_its_way)
    return router


async def get(app: Any, path: str = "/x") -> Any:
    async with client(app) as to:
        return (await to.get(path)).json()


async def test_an_override_is_respected(app: FastAPI, router: APIRouter) -> None:
    app.include_router(router)
    add_short_ways(app)
    assert await get(app) == SHORT
    app.dependency_overrides[way] = lambda: "overridden"
    assert await get(app) == "overridden"
    app.dependency_overrides.clear()
    assert await get(app) == SHORT


async def test_what_an_inclusion_asks_for_is_asked(app: FastAPI, router: APIRouter) -> None:
    async def guard() -> None:
        calls.append("guard")

    app.include_router(router)
    app.include_router(router, prefix="/guarded", dependencies=[Depends(guard)])
    add_short_ways(app)
    for path, expected in (("/x", []), ("/guarded/x", ["guard"]), ("/x", [])):
        calls.clear()
        assert await get(app, path) == SHORT
        assert calls == expected


async def test_a_route_that_stands_on_the_app_itself_is_served(app: FastAPI, router: APIRouter) -> None:
    app.router.routes.extend(router.routes)
    add_short_ways(app)
    assert await get(app) == SHORT


async def test_a_request_that_is_traced_goes_where_tracing_is(app: FastAPI, router: APIRouter) -> None:
    app.include_router(router)
    add_short_ways(app)

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"fastapi.telemetry": None}, receive, send)

    assert await get(traced) == LONG


@pytest.mark.parametrize("short", [True, False])
async def test_the_first_route_that_matches_is_taken(app: FastAPI, short: bool) -> None:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await Response('"mounted"')(scope, receive, send)

    @app.get("/x/first")
    @app.post("/x/other")
    async def first() -> str:
        return "first"

    @app.get("/x/{name}")
    async def pattern(name: str) -> str:
        return name.upper()

    @app.get("/x/{number:int}/y/{rest:path}")
    async def converted(number: int, rest: str) -> str:
        return f"{number + 1} {rest}"

    @app.get("/x/other")
    async def other() -> str:
        return "not reached"

    app.mount("/mounted", mounted)

    @app.get("/mounted/x")
    async def shadowed() -> str:
        return "not reached either"

    if short:
        add_short_ways(app)
    paths = ("/x/first", "/x/name", "/x/other", "/x/6/y/a/b%20c", "/mounted/x")
    assert [await get(app, path) for path in paths] == ["first", "NAME", "OTHER", "7 a/b c", "mounted"]
    async with client(app) as to:
        assert [(await to.post(path)).status_code for path in ("/x/other", "/x/first")] == [200, 405]
