"""FastRoute: which requests take the fast path, and that nothing of a user's is left out (see the matrix, too)."""

import functools
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import fields, make_dataclass
from itertools import product
from typing import Annotated, Any

import anyio.lowlevel
import fastapi
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.dependencies import models, utils
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from pydantic import AfterValidator, BaseModel, model_validator
from starlette.routing import Match

from plinth.http import FastRoute, dependants
from plinth.http.dependants import plan_for
from tests.plinth.http.apps import JSON, build, client

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
SECRET = {"secret": "data"}
ID = {"X-Request-ID": "the-same"}


async def secret() -> dict[str, str]:
    return SECRET


async def way(request: Request) -> str:
    return "way"


async def answer(app: Any, path: str = "/x", method: str = "GET", **request: Any) -> tuple[int, str]:
    async with client(app) as to:
        response = await to.request(method, path, **request)
    return response.status_code, response.text


def app_of(route_class: type[APIRoute], endpoint: Any = secret, app: FastAPI | None = None, **options: Any) -> FastAPI:
    app = app or FastAPI()
    router = APIRouter(prefix="/x", route_class=route_class)
    router.api_route("", **options)(endpoint)
    app.include_router(router)
    return app


def guard(original: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer right":
            raise HTTPException(401 if "authorization" not in request.headers else 403)
        return await original(request)

    return guarded


class Guarded(APIRoute):
    """A route class as FastAPI's documentation shows it."""

    def get_route_handler(self) -> Handler:
        return guard(super().get_route_handler())


class GuardedFast(FastRoute):
    def get_route_handler(self) -> Handler:
        return guard(super().get_route_handler())


class FastBeforeGuarded(FastRoute, Guarded):
    pass


class Wrapped(APIRoute):
    def get_route_handler(self) -> Handler:
        original = super().get_route_handler()
        return functools.wraps(original)(guard(original))


class FastBeforeWrapped(FastRoute, Wrapped):
    pass


class GuardedHandle(FastRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await guard(_nothing)(Request(scope))
        await super().handle(scope, receive, send)


async def _nothing(request: Request) -> Response:
    return Response()


@pytest.mark.parametrize(
    "route_class", [Guarded, GuardedFast, FastBeforeGuarded, Wrapped, FastBeforeWrapped, GuardedHandle]
)
@pytest.mark.parametrize("make", [FastAPI, build])
async def test_a_guard_in_a_users_route_class_is_never_left_out(
    make: Callable[[], FastAPI], route_class: type[APIRoute]
) -> None:
    app = app_of(route_class, app=make())
    for _ in range(2):
        status, text = await answer(app)
        assert status == 401
        assert "data" not in text
        assert (await answer(app, headers={"Authorization": "Bearer wrong"}))[0] == 403
        assert (await answer(app, headers={"Authorization": "Bearer right"}))[0] == 200


async def test_a_subclass_keeps_the_fast_path(solved_by_fastapi: list[str]) -> None:
    assert (await answer(app_of(GuardedFast), headers={"Authorization": "Bearer right"}))[0] == 200
    assert solved_by_fastapi == []
    assert (await answer(app_of(Guarded), headers={"Authorization": "Bearer right"}))[0] == 200
    assert solved_by_fastapi == ["/x"]


async def test_an_integration_that_wraps_fastapis_handler_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = fastapi.routing.get_request_handler

    def get_request_handler(*args: Any, **kwargs: Any) -> Handler:
        handler = original(*args, **kwargs)

        async def handle(request: Request) -> Response:
            seen.append(request.url.path)
            return await handler(request)

        return handle

    monkeypatch.setattr(fastapi.routing, "get_request_handler", get_request_handler)
    assert (await answer(app_of(FastRoute)))[0] == 200
    assert seen == ["/x"]


async def test_a_request_class_of_a_users_reads_the_body(solved_by_fastapi: list[str]) -> None:
    class Reversed(Request):
        async def body(self) -> bytes:
            if not hasattr(self, "_body"):
                self._body = (await super().body())[::-1]
            return self._body

    class ReversedRoute(FastRoute):
        def get_route_handler(self) -> Handler:
            original = super().get_route_handler()

            async def handle(request: Request) -> Response:
                return await original(Reversed(request.scope, request.receive))

            return handle

    async def echo(numbers: list[int]) -> list[int]:
        return numbers

    app = app_of(ReversedRoute, echo, methods=["POST"])
    assert await answer(app, method="POST", content=b"]21[", headers=JSON) == (200, "[12]")
    assert solved_by_fastapi == []


async def test_dependencies_of_each_inclusion_and_those_added_in_place_run(solved_by_fastapi: list[str]) -> None:
    async def refuse() -> None:
        raise HTTPException(403)

    app = FastAPI()
    router = APIRouter(prefix="/x", route_class=FastRoute)
    router.get("")(secret)
    app.include_router(router)
    app.include_router(router, prefix="/guarded", dependencies=[Depends(refuse)])
    app.router.routes.extend(router.routes)
    for path, status in (("/x", 200), ("/guarded/x", 403), ("/x", 200)):
        assert (await answer(app, path))[0] == status
    assert solved_by_fastapi == []

    direct = FastAPI(routes=[*router.routes])
    assert (await answer(direct))[0] == 200
    route: Any = router.routes[0]
    route.dependant.dependencies.insert(0, get_parameterless_sub_dependant(depends=Depends(refuse), path="/x"))
    assert (await answer(direct))[0] == 403


async def test_overrides_and_tracing_are_fastapis(solved_by_fastapi: list[str]) -> None:
    async def endpoint(way: Annotated[str, Depends(way)]) -> str:
        return way

    app = app_of(FastRoute, endpoint)
    assert await answer(app) == (200, '"way"')
    assert solved_by_fastapi == []
    app.dependency_overrides[way] = lambda: "overridden"
    assert await answer(app) == (200, '"overridden"')
    app.dependency_overrides = {}
    assert await answer(app) == (200, '"way"')
    assert solved_by_fastapi == ["/x"]

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"fastapi.telemetry": None}, receive, send)

    assert await answer(traced) == (200, '"way"')
    assert solved_by_fastapi == ["/x"] * 2


@pytest.mark.parametrize("route_class", [APIRoute, FastRoute])
async def test_a_handler_of_all_exceptions_is_called_and_reads_the_body(route_class: type[APIRoute]) -> None:
    async def fail(numbers: list[int]) -> None:
        raise RuntimeError("a bug")

    app = FastAPI()
    seen = []

    @app.exception_handler(Exception)
    async def handle(request: Request, error: Exception) -> Response:
        seen.append(str(error))
        return Response("handled", 500)

    @app.exception_handler(fastapi.exceptions.RequestValidationError)
    async def handle_invalid(request: Request, error: Any) -> Response:
        return Response(f"{await request.body()!r} {error.body!r} {error.endpoint_path}", 422)

    app_of(route_class, fail, app, methods=["POST"])
    with pytest.raises(RuntimeError, match="a bug"):
        await answer(app, method="POST", json=[1])
    assert seen == ["a bug"]
    assert await answer(app, method="POST", content=b'["a"]', headers=JSON) == (422, "b'[\"a\"]' ['a'] POST /x")


async def test_a_parameter_that_is_right_when_it_is_read_again_is_used() -> None:
    seen: list[str] = []

    async def dependency(response: Response, tasks: BackgroundTasks) -> str:
        seen.append("dependency")
        response.headers["X-Set"] = "1"
        tasks.add_task(seen.append, "task")
        return "value"

    def right_again(value: str) -> str:
        seen.append("validator")
        assert seen.count("validator") > 1
        return value

    async def endpoint(
        value: Annotated[str, Depends(dependency)],
        word: Annotated[str, AfterValidator(right_again)],
        response: Response,
        tasks: BackgroundTasks,
    ) -> str:
        response.headers.append("X-Set", "2")
        tasks.add_task(seen.append, "endpoint's task")
        return value + word

    async with client(app_of(FastRoute, endpoint)) as to:
        response = await to.get("/x?word=1")
    assert (response.text, response.headers["X-Set"]) == ('"value1"', "1, 2")
    assert seen == ["dependency", "validator", "validator", "task", "endpoint's task"]


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize("route_class", [APIRoute, FastRoute])
async def test_a_cancelled_request_closes_its_dependencies(route_class: type[APIRoute], scope: Any) -> None:
    seen: list[str] = []

    async def opened() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await anyio.lowlevel.checkpoint()  # not cancelled again, since FastAPI shields it
            seen.append("closed")

    async def endpoint(opened: Annotated[None, Depends(opened, scope=scope)]) -> None:
        await anyio.sleep_forever()

    app = app_of(route_class, endpoint)
    with anyio.move_on_after(0.05) as cancelled:
        await answer(app)
    assert cancelled.cancelled_caught
    assert seen == ["closed"]


@pytest.mark.parametrize("route_class", [APIRoute, FastRoute])
async def test_methods_are_routed_by_fastapi(route_class: type[APIRoute]) -> None:
    app = FastAPI()
    router = APIRouter(prefix="/x", route_class=route_class)

    @router.head("")
    async def head(response: Response) -> None:
        response.headers["X-Head"] = "1"

    router.get("")(secret)
    app.include_router(router)
    async with client(app) as to:
        response = await to.head("/x")
        assert (response.status_code, response.headers["X-Head"]) == (200, "1")
        response = await to.post("/x")
        assert (response.status_code, response.headers["Allow"]) == (405, "HEAD")


TEMPLATES = (
    "/x",
    "/x/{id}",
    "/x/{id:int}/y",
    "/{a}-{b}/z",
    "/{rest:path}",
    "/x/{id:digits}/y/{b}",
    "/x/{id",
    "/x/{a b}",
)
PATHS = (
    "/",
    "/x",
    "/x\n",
    "/x/",
    "/x/7",
    "/x/7/y",
    "/x/a/y",
    "/a-b/z",
    "/x/7/y/c",
    "/x/{id",
    "/x/{a b}",
    "/p/x/7",
    "/X",
)


@pytest.mark.parametrize("prefix", ["", "/p", "/{tenant}"])
def test_paths_match_as_those_of_api_route(prefix: str) -> None:
    def routes(route_class: type[APIRoute]) -> list[Any]:
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        for template in TEMPLATES:
            router = APIRouter(route_class=route_class)
            router.add_api_route(template, secret)
            app.include_router(router, prefix=prefix)
        return app.routes

    matched = set()
    for path, (stock, fast) in product(
        (*PATHS, *(prefix + path for path in PATHS)), zip(*map(routes, (APIRoute, FastRoute)), strict=True)
    ):
        for root_path in ("", "/x", "/p"):
            scope = {"type": "http", "method": "GET", "path": path, "root_path": root_path, "headers": []}
            expected = stock.matches({**scope})
            assert fast.matches({**scope}) == expected, (path, root_path)
            matched.add(expected[0])
    assert matched == {Match.FULL, Match.NONE}


def test_both_are_documented_the_same() -> None:
    async def create(data: Item, response: Response, word: str = "") -> Item:
        return data

    assert app_of(FastRoute, create, methods=["POST"]).openapi() == app_of(APIRoute, create, methods=["POST"]).openapi()


class Item(BaseModel):
    id: int


async def test_digits_are_digits() -> None:
    app = FastAPI()

    @app.get("/{id:digits}")
    async def get(id: int) -> int:
        return id

    assert await answer(app, "/007") == (200, "7")
    for path in ("/7a", "/-7", "/%D9%A7", "/search"):
        assert (await answer(app, path))[0] == 404
    assert app.url_path_for("get", id="7") == app.url_path_for("get", id=7) == "/7"


[MORE] = fields(make_dataclass("More", ["more"]))
FUTURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "another minor version": lambda patch: patch.setattr(fastapi, "__version__", "0.166.0"),
    "another field": lambda patch: patch.setitem(models.Dependant.__dataclass_fields__, "more", MORE),
    "no field": lambda patch: patch.delitem(models.Dependant.__dataclass_fields__, "cookie_params"),
    "no effective route": lambda patch: patch.setattr(dependants, "routing", object()),
    "no aliases": lambda patch: patch.delattr(utils, "_get_param_aliases"),
    "other arguments": lambda patch: patch.setattr(models, "_get_cache_key", lambda: None),
}


BODIES = {
    "valid": b'{"name": "x"}',
    "wrong": b'{"name": 1}',
    "no JSON": b'{"name": "x"',
    "no number": b"9" * 5000,
    "no UTF-8": b'{"name": "\xff"}',
    "too deep": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("query", ["?page=1", "?page=one", "?two=wrong&page=1"])
@pytest.mark.parametrize("headers", [JSON, {"Content-Type": "application/json; charset=utf-8"}, {}])
async def test_a_body_is_parsed_and_validated_at_most_once(
    monkeypatch: pytest.MonkeyPatch, body: str, query: str, headers: dict[str, str]
) -> None:
    parsed: list[Any] = []
    validated: list[Any] = []
    loads = json.loads

    def counted(text: Any, *arguments: Any, **options: Any) -> Any:
        parsed.append(text)
        return loads(text, *arguments, **options)

    def counting(value: Any) -> Any:
        validated.append(value)
        return value

    class Thing(BaseModel):
        name: str
        _count = model_validator(mode="before")(counting)

    async def two(two: int = 2) -> int:
        return two

    async def endpoint(thing: Thing, two: Annotated[int, Depends(two)], page: int) -> str:
        return thing.name

    monkeypatch.setattr(json, "loads", counted)
    answers = []
    for route_class in (FastRoute, APIRoute):
        parsed.clear()
        validated.clear()
        app = app_of(route_class, endpoint, build(), methods=["POST"])
        answers.append(await answer(app, f"/x{query}", "POST", content=BODIES[body], headers=ID | headers))
        assert len(parsed) <= 1
        assert len(validated) <= 1
    assert answers[0] == answers[1]


@pytest.mark.parametrize("future", FUTURES)
async def test_another_fastapi_serves_its_routes_itself(
    future: str, solved_by_fastapi: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def endpoint(way: Annotated[str, Depends(way)], id: int = 1) -> str:
        return f"{way} {id}"

    with pytest.MonkeyPatch.context() as monkeypatch, caplog.at_level(logging.DEBUG, "plinth.http"):
        FUTURES[future](monkeypatch)
        route = FastRoute("/x", endpoint)
    assert "FastAPI's own handler serves /x" in caplog.text
    assert await answer(FastAPI(routes=[route]), "/x?id=7") == (200, '"way 7"')
    assert solved_by_fastapi == ["/x"]


async def test_what_is_not_supported_is_fastapis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "ensure_multipart_is_installed", lambda: None)

    async def form(word: Annotated[str, Form()]) -> str:
        return word

    async def stream() -> AsyncIterator[str]:
        yield ""

    async def supported(word: str) -> str:
        return word

    events = APIRoute("/x", supported, response_class=EventSourceResponse)
    assert plan_for(events) is None

    for endpoint, is_planned in ((form, False), (stream, False), (supported, True)):
        assert (plan_for(APIRoute("/x", endpoint)) is not None) is is_planned
