"""No answer of one caller reaches another: apps with the cache are compared with the same apps without it."""

import asyncio
import gc
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from itertools import combinations, permutations, product
from math import inf
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.cache import Cache, CachedRoutes, ResponseCacheMiddleware, Tag, cached_response
from plinth.cache.stores import Memory, MemoryStore
from plinth.errors import UnavailableError
from plinth.http import FastRoute, UnhandledErrorMiddleware, exception_handlers
from plinth.telemetry.context import request_id

ITEM = Tag("item:{name}")
caller: ContextVar[str] = ContextVar("caller", default="nobody")


class Client:
    """Calls an app with or without the response cache, as callers that differ in all that a request can differ in."""

    def __init__(self, app: FastAPI, *, cached: bool = True) -> None:
        self.cache = Cache(MemoryStore(Memory(1000, 2**22)))
        self.app = app
        if cached:
            routes = CachedRoutes()
            routes.add_all_of(app)
            app.add_middleware(UnhandledErrorMiddleware)
            app.add_middleware(ResponseCacheMiddleware, routes, 4, 1000, debug_header=True)
            app.add_middleware(MarkingMiddleware)

    async def get(
        self, path: str, who: str = "ann", query: str = "", method: str = "GET", root_path: str = ""
    ) -> tuple[int, str, str]:
        """The status, the body, and where it is from."""
        sent: list[Message] = []
        host = "api.example" if who == "host" else f"{who}.example"
        headers = {"host": host, "x-user": who, "cookie": f"user={who}", "authorization": f"Bearer {who}"}

        messages = iter([{"type": "http.request", "body": f'"{who}"'.encode(), "more_body": False}])

        async def receive() -> Message:
            return next(messages, None) or await asyncio.get_running_loop().create_future()

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": "1.1",
                "method": method,
                "scheme": "https",
                "server": (who, 443),
                "client": (who, 1),
                "root_path": root_path,
                "path": path,
                "raw_path": f"{path}?{who}".encode(),
                "query_string": query.encode(),
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
                "extensions": {who: {}},
                "state": {"cache": self.cache},
            },
            receive,
            send,
        )
        self.headers = found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in sent[1:]).decode()
        return sent[0]["status"], body, found.get("x-cache", "")


class MarkingMiddleware:
    """As that of an app which finds out who the caller is, outside of the cache."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        who = scope["client"][0]
        scope["state"]["user"] = scope["user"] = scope["session"] = scope["path_params"] = {"user": who}
        tokens = caller.set(who), request_id.set(f"request-of-{who}")
        await self.app(scope, receive, send)
        caller.reset(tokens[0])
        request_id.reset(tokens[1])


def who(request: Request) -> str:
    return f"{request.headers['x-user']} {request.cookies['user']} {request.url.hostname}"


# Each adds one way to declare a route that may answer a path beside the cached pattern.


def cached(app: FastAPI) -> None:
    @app.get("/items/{name}")
    @cached_response(ttl=60, tags=[ITEM])
    async def item(name: str) -> str:
        return f"cached {name}"


def cached_digits_in_a_router(app: FastAPI) -> None:
    router = APIRouter(prefix="/items", route_class=FastRoute)

    @router.get("/{name:digits}")
    @cached_response(ttl=60, tags=[ITEM])
    async def item(name: int) -> str:
        return f"cached digits {name}"

    app.include_router(router)


def exact(app: FastAPI) -> None:
    app.get("/items/me")(who)


def pattern(app: FastAPI) -> None:
    app.get("/items/{other}")(who)


def convertor(app: FastAPI) -> None:
    app.get("/items/{id:int}")(who)


def everything(app: FastAPI) -> None:
    app.get("/{rest:path}")(who)


def another_method(app: FastAPI) -> None:
    app.post("/items/{name}")(who)


def both_methods(app: FastAPI) -> None:
    app.api_route("/items/me", methods=["GET", "POST"])(who)


def nested_router(app: FastAPI) -> None:
    inner, outer = APIRouter(prefix="/me", route_class=FastRoute), APIRouter(prefix="/items")
    inner.get("")(who)
    outer.include_router(inner)
    app.include_router(outer)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"mounted {who(Request(scope))}")(scope, receive, send)


def mount(app: FastAPI) -> None:
    app.mount("/items", echo)


def mount_in_a_router(app: FastAPI) -> None:
    router = APIRouter(prefix="/items")
    router.mount("/me", echo)
    app.include_router(router)


def host(app: FastAPI) -> None:
    app.router.routes.append(Host("api.example", app=echo))


def starlette_route(app: FastAPI) -> None:
    async def plain(request: Request) -> Response:
        return PlainTextResponse(who(request))

    app.add_route("/items/me", plain)


class ForBeth(APIRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match, child) if (b"x-user", b"beth") in scope["headers"] else (Match.NONE, {})


def by_header(app: FastAPI) -> None:
    router = APIRouter(route_class=ForBeth)
    router.get("/items/{name}")(who)
    app.include_router(router)


OTHERS: list[Callable[[FastAPI], None]] = [
    exact,
    pattern,
    convertor,
    everything,
    another_method,
    both_methods,
    nested_router,
    mount,
    mount_in_a_router,
    host,
    starlette_route,
    by_header,
]
REQUESTS = [("GET", "/items/me"), ("GET", "/items/7"), ("POST", "/items/7"), ("GET", "/items/me/x")]


def declarations() -> Iterator[tuple[Callable[[FastAPI], None], ...]]:
    """In every order a cached pattern and another route, and before, between and after two others."""
    for other in [*OTHERS, cached_digits_in_a_router]:
        for first in (cached, cached_digits_in_a_router):
            yield from permutations([first, other])
    for one, other in combinations(OTHERS, 2):
        yield from ((cached, one, other), (one, cached, other), (other, one, cached))


async def test_each_caller_gets_what_the_app_without_the_cache_answers() -> None:
    compared = hits = 0
    for declared in declarations():
        with_cache, without = FastAPI(), FastAPI()
        for declare in declared:
            declare(with_cache)
            declare(without)
        client, reference = Client(with_cache), Client(without, cached=False)
        for method, path in REQUESTS:
            for user in ("ann", "beth", "host" if host in declared else "ann"):
                status, body, origin = await client.get(path, user, method=method)
                expected = await reference.get(path, user, method=method)
                names = [declare.__name__ for declare in declared]
                assert (status, body) == expected[:2], f"{method} {path} of {user}, declared {names}"
                compared, hits = compared + 1, hits + (origin == "hit")
    assert (compared >= 3000, hits > 500) == (True, True), (compared, hits)


async def test_routes_that_are_added_later_answer_too() -> None:
    app = FastAPI()
    cached(app)
    client = Client(app)
    assert [(await client.get("/items/me"))[1:] for _ in range(2)] == [('"cached me"', "miss"), ('"cached me"', "hit")]
    exact(app)
    app.router.routes.insert(0, app.router.routes.pop())
    for user in ("ann", "beth"):
        assert user in (await client.get("/items/me", user))[1]


class RewritingMiddleware:
    """Between the cache and the routes, which then answer another path than the cache has seen."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/items/me":
            scope = {**scope, "path": "/me"}
        await self.app(scope, receive, send)


async def test_what_another_route_answered_is_not_kept() -> None:
    app = FastAPI()
    app.add_middleware(RewritingMiddleware)
    cached(app)

    @app.get("/me")
    async def me(request: Request) -> str:
        return request.headers.get("x-user", "of everyone")

    client = Client(app)
    for user in ("ann", "beth", "ann"):
        assert (await client.get("/items/me", user))[1] == f'"{user}"'


@pytest.mark.parametrize("status", [200, 401, 404, 500, 503])
async def test_what_a_middleware_answers_by_itself_is_not_shared(status: int) -> None:
    """Inside of the cache, to those that it does not know."""

    class RefusingMiddleware(RewritingMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            known = scope["type"] != "http" or b"x-user" in dict(scope["headers"])
            await (self.app if known else PlainTextResponse("Who are you?", status))(scope, receive, send)

    app = FastAPI()
    app.add_middleware(RefusingMiddleware)
    cached(app)
    client = Client(app)
    for user in ("ann", "beth", "ann"):
        assert (await client.get("/items/7", user))[1] == '"cached 7"'


async def test_a_refusal_by_a_middleware_does_not_end_the_caching() -> None:
    refuses = True

    class MaintenanceMiddleware(RewritingMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            refused = refuses and scope["type"] == "http"
            await (PlainTextResponse("Later.", 503) if refused else self.app)(scope, receive, send)

    app = FastAPI()
    app.add_middleware(MaintenanceMiddleware)
    cached(app)
    client = Client(app)
    assert (await client.get("/items/7"))[0] == 503
    refuses = False
    assert [(await client.get("/items/7"))[2] for _ in range(2)] == ["miss", "hit"]


async def test_one_path_below_two_prefixes_is_two_entries() -> None:
    app = FastAPI()
    cached(app)

    @app.get("/shop/items/{name}")
    @cached_response(ttl=60, tags=[ITEM])
    async def shop_item(name: str) -> str:
        return f"of the shop {name}"

    client = Client(app)
    for prefix, expected in (
        ("", "of the shop 7"),
        ("/shop", "cached 7"),
        ("", "of the shop 7"),
        ("/shop", "cached 7"),
    ):
        assert (await client.get("/shop/items/7", root_path=prefix))[1] == f'"{expected}"'


def looks_at(request: Any) -> dict[str, str]:
    """A helper, which is not seen at start-up, that looks at all of a request."""
    return {
        "scope": str({name: value for name, value in request.scope.items() if name not in {"app", "router"}}),
        "headers": str(request.headers),
        "url": str(request.url_for("see", name="x")),
        "base": str(request.base_url),
        "client": str(request.client),
        "cookies": str(request.cookies),
        "state": str(request.state._state),
        "variable": caller.get(),
        "id": str(request_id.get()),
    }


@pytest.mark.parametrize("route_class", [APIRoute, FastRoute])
@pytest.mark.parametrize("connection", [Request, HTTPConnection])
async def test_a_load_sees_nothing_of_the_caller(route_class: type[APIRoute], connection: Any) -> None:
    app, router = FastAPI(), APIRouter(route_class=route_class)

    async def seen(request) -> dict[str, str]:  # type: ignore[no-untyped-def]
        return {**looks_at(request), "body": str(await reads(request))}

    async def reads(request: Any) -> Any:
        return await request.body() if isinstance(request, Request) else b""

    seen.__annotations__["request"] = connection

    @router.get("/items/{name}")
    @cached_response(ttl=60, tags=[ITEM])
    async def see(
        name: str, seen: Annotated[dict[str, str], Depends(seen)], a: str = "", b: str = ""
    ) -> dict[str, str]:
        return seen

    app.include_router(router)
    client = Client(app)
    async with asyncio.timeout(20):
        first = await client.get("/items/x", "xann", "b=%41&a=%20+")
        second = await client.get("/items/x", "xbeth", "a=++&b=A")
    assert (first[0], first[2], second[2]) == (200, "miss", "hit")
    assert first[1] == second[1]
    assert "xann" not in first[1]
    assert "%41" not in first[1]
    assert "http://localhost/items/x" in first[1]


class Schema(BaseModel):
    x: int = 0


class AsksForHeaders:
    async def __call__(self, request: Request) -> str:
        return request.headers.get("x-user", "")


async def by_header_parameter(x_user: Annotated[str, Header()] = "") -> str:
    return x_user


async def by_cookie_parameter(user: Annotated[str, Cookie()] = "") -> str:
    return user


async def by_body(data: Annotated[str, Body()] = "") -> str:
    return data


async def by_schema(data: Schema) -> int:
    return data.x


async def by_request_headers(request: Request) -> str:
    return request.headers.get("x-user", "")


async def by_request_cookies(request: Request) -> str:
    return request.cookies.get("user", "")


async def by_client(request: Request) -> str:
    return request.client.host if request.client else ""


async def by_connection(connection: HTTPConnection) -> str:
    return connection.headers.get("x-user", "")


async def by_request_body(request: Request) -> bytes:
    return await request.body()


async def by_scopes(scopes: SecurityScopes) -> list[str]:
    return scopes.scopes


async def by_user(request: Request) -> Any:
    return request.user


ASKING: dict[str, Any] = {
    "headers": [by_header_parameter, by_request_headers, by_connection, AsksForHeaders()],
    "cookies": [by_cookie_parameter, by_request_cookies],
    "the body": [by_body, by_schema, by_request_body],
    "credentials": [by_scopes, HTTPBearer(), APIKeyHeader(name="X-API-Key"), OAuth2PasswordBearer(tokenUrl="token")],
    "the client's address": [by_client],
    "the user": [by_user],
}
PLACES = ["endpoint's dependency", "dependency of a dependency", "route", "router", "app", "Security"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("asked", "call"), [(asked, call) for asked, calls in ASKING.items() for call in calls])
def test_a_route_that_asks_for_something_of_the_caller_is_refused_at_start(
    asked: str, call: Callable[..., Any], place: str
) -> None:
    depends = Depends(call)

    async def outer(inner: Annotated[Any, depends]) -> Any:
        return inner

    async def nothing() -> None:
        return None

    app = FastAPI(dependencies=[depends] if place == "app" else [])
    router = APIRouter(prefix="/items", dependencies=[depends] if place == "router" else [])
    parameter = {PLACES[0]: depends, PLACES[1]: Depends(outer), "Security": Security(call)}.get(place, Depends(nothing))

    @router.get("/{name}", dependencies=[depends] if place == "route" else [])
    @cached_response(ttl=60, tags=[ITEM])
    async def get_item(name: str, found: Annotated[Any, parameter]) -> str:
        return name

    app.include_router(router)
    with pytest.raises(ValueError, match=r"@cached_response of /items/\{name\}: it asks for ") as refused:
        CachedRoutes().add_all_of(app)
    assert asked in str(refused.value)
    assert "every client gets the same response" in str(refused.value)


async def stream() -> AsyncIterator[int]:
    yield 1


async def annotated_stream() -> StreamingResponse:
    return StreamingResponse(iter([b"1"]))


async def file() -> FileResponse:
    return FileResponse("/dev/null")


@pytest.mark.parametrize(
    ("endpoint", "options"),
    [(stream, {}), (annotated_stream, {}), (file, {}), (by_body, {"response_class": StreamingResponse})],
)
def test_a_route_that_streams_is_refused_at_start(endpoint: Any, options: dict[str, Any]) -> None:
    app = FastAPI()

    async def plain() -> Any:
        return 1

    app.get("/items", **options)(cached_response(ttl=60, tags=[])(plain if options else endpoint))
    with pytest.raises(ValueError, match="@cached_response of /items: it streams"):
        CachedRoutes().add_all_of(app)


def test_a_route_without_get_is_refused_at_start() -> None:
    app = FastAPI()

    async def plain() -> int:
        return 1

    app.post("/items")(cached_response(ttl=60, tags=[])(plain))
    with pytest.raises(ValueError, match="@cached_response of /items: it answers no GET"):
        CachedRoutes().add_all_of(app)


class Colour(Enum):
    RED = "red"
    BLUE = "Blue"


class Number(Enum):
    ONE = 1


ID = f"{UUID(int=171)}"
SPELLINGS: list[tuple[Any, list[str]]] = [
    (int, ["7", "+7", " 7", "7 ", "07", "007", "7.0", "7_0", "70", "٧", "-7"]),
    (float, ["7", "7.0", "7.00", "+7", "7e0", "70e-1", "0.7e1", " 7", "inf", "Infinity", "nan"]),
    (UUID, [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"]),
    (bool, ["true", "True", "1", "on", "yes", "t", "false", "0"]),
    (date, ["2026-11-28", "2026-11-28T00:00:00", "1795824000", "2026-11-28 00:00", " 2026-11-28"]),
    (Colour, ["red", "Blue", "RED", "blue", " red"]),
    (Number, ["1", "+1", "1.0", "01"]),
    (Literal["a", "b"], ["a", "b", "A", " a"]),
    (Literal[1, 2], ["1", "2", "+1", "1.0"]),
    (str, ["a", "A", " a", "a ", "7", "07", "é", "%41", "a/b"]),
    (int | str, ["7", "07", "+7", "x"]),
    (int | float, ["7", "7.0", "7.5", "+7"]),
    (str | None, ["a", "None", "null"]),
    (Decimal, ["1.5", "1.50", "+1.5", "15e-1", "1", "1.0", "1E+3", "NaN"]),
    (datetime, [f"2026-11-28T{at}" for at in ("12:00:00Z", "12:00:00+00:00", "14:00:00+02:00", "12:00:00")]),
]  # fmt: skip
VALUE = Tag("value:{value}")


def versioned(kind: Any, route_class: type[APIRoute] = APIRoute) -> tuple[FastAPI, dict[str, int]]:
    """An app that counts the writes of each value, and shows the count by path and by query."""
    versions: dict[str, int] = {}
    app, router = FastAPI(), APIRouter(route_class=route_class)

    def key(value: Any) -> str:
        return f"{type(value).__name__} {value}"

    class Model(BaseModel):
        value: kind
        more: int = 0

    @router.get("/values/{value:path}")
    @cached_response(ttl=60, tags=[VALUE])
    async def get(value: kind) -> Any:
        return [key(value), versions.get(key(value), 0)]

    @router.get("/query")
    @cached_response(ttl=60, tags=[Tag("all")])
    async def query(value: kind, more: int = 0) -> Any:
        return [key(value), versions.get(key(value), 0), more]

    @router.get("/model")
    @cached_response(ttl=60, tags=[Tag("all")])
    async def model(query: Annotated[Model, Query()]) -> Any:
        return [key(query.value), versions.get(key(query.value), 0), query.more]

    @router.put("/values/{value:path}")
    async def put(value: kind, request: Request) -> None:
        versions[key(value)] = versions.get(key(value), 0) + 1
        await request.state.cache.invalidate(VALUE(value), Tag("all"))

    app.include_router(router)
    return app, versions


@pytest.mark.parametrize("route_class", [APIRoute, FastRoute])
@pytest.mark.parametrize(("kind", "spellings"), SPELLINGS, ids=[str(kind) for kind, _ in SPELLINGS])
async def test_a_write_is_seen_in_every_spelling(kind: Any, spellings: list[str], route_class: type[APIRoute]) -> None:
    (app, versions), (plain, others) = versioned(kind, route_class), versioned(kind, route_class)
    client, reference = Client(app), Client(plain, cached=False)
    hits = 0

    async def compare(written: str) -> None:
        nonlocal hits
        for spelling in spellings:
            quoted = "".join(f"%{byte:02x}" for byte in spelling.encode())
            for path, query in (
                (f"/values/{spelling}", ""),
                ("/query", f"value={quoted}"),
                ("/query", f"more=1&value={quoted}"),
                ("/query", f"value={quoted}&more=%2B1"),
                ("/model", f"value={quoted}"),
                ("/model", f"value={quoted}&more=01"),
            ):
                for _ in range(2):
                    status, body, origin = await client.get(path, query=query)
                    assert (status, body) == (await reference.get(path, query=query))[:2], (path, query, written)
                    hits += origin == "hit"

    await compare("")
    for spelling in spellings:
        for each in (client, reference):
            await each.get(f"/values/{spelling}", method="PUT")
        assert versions == others
        await compare(spelling)
    assert hits > 4 * len(spellings) or kind in {Number, Literal[1, 2]}, "nothing is cached"
    # One entry for each value, and the query of its own.
    assert len(client.cache._store.memory.entries) <= 9 * len(spellings)


async def test_dependency_overrides_switch_the_cache_off() -> None:
    app = FastAPI()

    async def number() -> int:
        return 1

    @app.get("/number")
    @cached_response(ttl=60, tags=[])
    async def get_number(number: Annotated[int, Depends(number)]) -> int:
        return number

    client = Client(app)
    assert [(await client.get("/number"))[1:] for _ in range(2)] == [("1", "miss"), ("1", "hit")]
    app.dependency_overrides[number] = lambda: 2
    assert [(await client.get("/number"))[1:] for _ in range(2)] == [("2", "bypass"), ("2", "bypass")]
    app.dependency_overrides.clear()
    assert (await client.get("/number"))[1:] == ("1", "hit")


class Failing:
    """An app whose endpoint waits for `go_on`, and then does what `answer` does."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.calls = 0
        self.go_on = asyncio.Event()
        app = FastAPI(exception_handlers=exception_handlers)

        @app.get("/items")
        @cached_response(ttl=60, tags=[])
        async def items() -> Response:
            self.calls += 1
            await self.go_on.wait()
            response: Response = answer()
            return response

        self.client = Client(app)

    async def get_at_once(self, count: int) -> list[tuple[int, str, str]]:
        calls = [asyncio.create_task(self.client.get("/items", f"user{number}")) for number in range(count)]
        await asyncio.sleep(0)
        self.go_on.set()
        async with asyncio.timeout(20):
            return list(await asyncio.gather(*calls))


def unavailable() -> Response:
    raise UnavailableError("The database is away.")


def unexpected() -> Response:
    raise LookupError("ann")


@pytest.mark.parametrize(
    ("answer", "status"), [(unavailable, 503), (unexpected, 500), (lambda: PlainTextResponse("no", 502), 502)]
)
async def test_a_failed_load_is_shared_by_all_who_waited_and_not_kept(answer: Any, status: int) -> None:
    failing = Failing(answer)
    answers = await failing.get_at_once(50)
    assert {answer[0] for answer in answers} == {status}
    assert failing.calls == 1
    assert not any("user" in answer[1] for answer in answers)
    assert (await failing.client.get("/items"))[0] == status
    assert failing.calls == 2


@pytest.mark.parametrize("rows", [1, 3, 100])
async def test_a_stream_runs_once_for_each_request(rows: int) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for row in range(rows):
            yield b"%d\n" % row

    failing = Failing(lambda: StreamingResponse(lines()))
    expected = "".join(f"{row}\n" for row in range(rows))
    answers = [*await failing.get_at_once(10), *[await failing.client.get("/items") for _ in range(3)]]
    assert {answer[1] for answer in answers} == {expected}
    assert failing.calls == len(answers)


@pytest.mark.parametrize("rows", [1, inf])
async def test_a_stream_ends_when_its_client_leaves(rows: float) -> None:
    """Also one that waits for its next row when the client leaves."""
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        left = rows
        try:
            while left > 0:
                left -= 1
                yield b"."
                await asyncio.sleep(0)
            await asyncio.Event().wait()
        finally:
            ended.set()

    failing = Failing(lambda: StreamingResponse(endless()))
    failing.go_on.set()
    leaving = asyncio.create_task(failing.client.get("/items"))
    for _ in range(100):
        await asyncio.sleep(0)
    leaving.cancel()
    async with asyncio.timeout(20):
        while not ended.is_set() or failing.client.cache._tasks:
            gc.collect()  # takes a second in a process that has run many tests
            for _ in range(100):
                await asyncio.sleep(0)


@pytest.mark.parametrize("headers", [{"Set-Cookie": "a=b"}, {"Vary": "Accept-Language"}, {"Vary": "*"}])
async def test_what_only_one_client_may_get_is_not_shared(headers: dict[str, str]) -> None:
    numbers = iter(range(1000))
    failing = Failing(lambda: PlainTextResponse(str(next(numbers)), headers=headers))
    answers = [*await failing.get_at_once(10), *[await failing.client.get("/items") for _ in range(3)]]
    assert len({answer[1] for answer in answers}) == len(answers)
    assert failing.calls == len(answers) + 1  # after the first load, the route is known to be one of those


@pytest.mark.parametrize("length", [3000, 1_000_000])
async def test_nothing_is_kept_under_bytes_whose_length_a_client_chose(length: int) -> None:
    app = FastAPI()
    cached(app)
    client = Client(app)
    for number in range(10):
        assert (await client.get(f"/items/{number}" + "x" * length))[2] == "bypass"
        assert (await client.get("/items/1", query="a" * length))[2] == "bypass"
    memory = client.cache._store.memory
    assert (len(memory.entries), len(memory.urls)) == (0, 0)


async def test_the_urls_that_a_client_chose_take_no_more_than_their_share() -> None:
    """A walk over long paths, of which each may be cached."""
    app, limit = FastAPI(), 2**20
    cached(app)
    client = Client(app)
    client.cache = Cache(MemoryStore(Memory(100_000, limit)))
    await client.get("/items/first")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(150):
        path = f"/items/{number}" + "x" * 1900
        assert [(await client.get(path))[2] for _ in range(2)] == ["miss", "hit"]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert limit / 50 < grown < limit


class Token(BaseModel):
    token: SecretStr
    page: int = 1


class Opaque:
    """A user's type: every value looks the same."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Opaque"


class KeepsWhatWasSent(BaseModel):
    number: int
    sent: str = ""
    _sent: str = PrivateAttr("")

    @model_validator(mode="wrap")
    @classmethod
    def keep(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        model = handler(dict(data) | {"sent": str(data.get("number"))})
        model._sent = str(data.get("number"))
        return model


class HidesWhatWasSent(KeepsWhatWasSent):
    sent: str = Field("", exclude=True, repr=False)


def secret_parameter(app: FastAPI) -> None:
    @app.get("/items")
    @cached_response(ttl=60, tags=[])
    async def items(token: SecretStr = SecretStr("")) -> str:
        return token.get_secret_value()


def secret_in_a_model(app: FastAPI) -> None:
    @app.get("/items")
    @cached_response(ttl=60, tags=[])
    async def items(query: Annotated[Token, Query()]) -> list[Any]:
        return [query.token.get_secret_value(), query.page]


def opaque_parameter(app: FastAPI) -> None:
    @app.get("/items")
    @cached_response(ttl=60, tags=[])
    async def items(token: Annotated[Any, Query(), PlainValidator(Opaque)]) -> Any:
        return token.text


def keeping(model: type[KeepsWhatWasSent]) -> Callable[[FastAPI], None]:
    def declare(app: FastAPI) -> None:
        async def items(query: Any) -> list[Any]:
            return [query.number, query.sent, query._sent]

        items.__annotations__["query"] = Annotated[model, Query()]
        app.get("/items")(cached_response(ttl=60, tags=[])(items))

    return declare


def one_name_as(kind: Any, other: Any) -> Callable[[FastAPI], None]:
    def declare(app: FastAPI) -> None:
        async def dependency(number: other) -> Any:
            return number

        @app.get("/items")
        @cached_response(ttl=60, tags=[])
        async def items(number: kind, found: Annotated[Any, Depends(dependency)]) -> list[Any]:
            return [number, found]

    return declare


TOKENS = [f"token={token}" for token in ("ann", "beth", "**********", "ann&page=02", "beth&page=2")]
NUMBERS = [f"number={number}" for number in ("7", "07", "%2B7", "+7", "7.0", "007")]


@pytest.mark.parametrize(
    ("declare", "queries"),
    [
        (secret_parameter, TOKENS),
        (secret_in_a_model, TOKENS),
        (opaque_parameter, TOKENS),
        *((keeping(model), NUMBERS) for model in (KeepsWhatWasSent, HidesWhatWasSent)),
        *((one_name_as(*kinds), NUMBERS) for kinds in permutations([str, int, float, Decimal, Any], 2)),
    ],
)
async def test_two_spellings_are_one_entry_only_if_nothing_in_the_app_can_tell_them_apart(
    declare: Callable[[FastAPI], None], queries: list[str]
) -> None:
    app, plain = FastAPI(), FastAPI()
    for each in (app, plain):
        declare(each)
    client, reference = Client(app), Client(plain, cached=False)
    for query in queries * 2:
        expected = (await reference.get("/items", query=query))[:2]
        assert (await client.get("/items", query=query))[:2] == expected, query


async def test_a_path_parameter_that_nothing_declares_is_one_value_in_every_spelling() -> None:
    app, written = FastAPI(), Counter[int]()

    @app.get("/items/{number:int}")
    @cached_response(ttl=60, tags=[Tag("item:{number}")])
    async def get(request: Request) -> list[int]:
        return [request.path_params["number"], written[request.path_params["number"]]]

    client = Client(app)
    for write in range(3):
        for number, body in product(["7", "07", "007"], [f"[7,{write}]"] * 2):
            assert (await client.get(f"/items/{number}"))[:2] == (200, body)
        written[7] += 1
        await client.cache.invalidate(Tag("item:{number}")(7))


@pytest.mark.parametrize(
    "header", [(b"Set-Cookie", b"user=ann"), (b"VARY", b"Cookie"), (b"Cache-Control", b"Private"), (b"vary", b"*")]
)
async def test_a_response_for_one_client_is_known_by_headers_in_any_case(header: tuple[bytes, bytes]) -> None:
    app = FastAPI()

    @app.get("/items")
    @cached_response(ttl=60, tags=[])
    async def items() -> Response:
        response = PlainTextResponse("ann's")
        response.raw_headers.append(header)
        return response

    client = Client(app)
    assert [(await client.get("/items"))[2] for _ in range(3)] == ["bypass"] * 3


@pytest.mark.parametrize("header", [{"X-More": "1"}, {"Cache-Control": "max-age=9"}, {"Link": "</a>"}, {}])
async def test_a_404_with_headers_of_its_own_keeps_them(header: dict[str, str]) -> None:
    app = FastAPI(exception_handlers=exception_handlers)

    @app.get("/items", responses={404: {}})
    @cached_response(ttl=60, tags=[], missing_ttl=60)
    async def items() -> None:
        raise HTTPException(404, "There are none.", header)

    client, sent = Client(app), {name.lower(): value for name, value in header.items()}
    for origin in ("miss", "hit", "hit") if not header else ("bypass", "bypass"):
        assert (await client.get("/items"))[::2] == (404, origin)
        assert client.headers.items() >= sent.items()


@pytest.mark.parametrize("kind", ["background task", "dependency"])
async def test_what_follows_a_response_neither_delays_nor_replaces_it(kind: str) -> None:
    app, ended, go_on = FastAPI(exception_handlers=exception_handlers), asyncio.Event(), asyncio.Event()

    async def follow() -> None:
        await go_on.wait()
        ended.set()
        raise RuntimeError("What follows the response failed")

    async def dependency() -> AsyncIterator[None]:
        yield
        await follow()

    async def nothing() -> None:
        return None

    depends = Depends(dependency if kind == "dependency" else nothing)

    @app.get("/items")
    @cached_response(ttl=60, tags=[])
    async def items(tasks: BackgroundTasks, _: Annotated[None, depends]) -> int:
        if kind == "background task":
            tasks.add_task(follow)
        return 1

    client = Client(app)
    async with asyncio.timeout(10):
        assert [await client.get("/items") for _ in range(2)] == [(200, "1", "miss"), (200, "1", "hit")]
        go_on.set()
        await ended.wait()
        assert await client.get("/items") == (200, "1", "hit")
        await client.cache.close()
