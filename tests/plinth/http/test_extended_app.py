"""A service that is extended as FastAPI allows: its own code answers the same in plinth's app as in a plain FastAPI.

One app has plinth's middleware, exception handlers and FastRoute, the other has nothing but FastAPI's defaults.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

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
    WebSocket,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi.staticfiles import StaticFiles
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http import FastRoute
from tests.plinth.http.apps import build

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Thing(BaseModel):
    name: str
    size: int = 1


class Filters(BaseModel):
    limit: int = 10
    tags: list[str] = []


class OwnError(Exception):
    pass


class OwnMiddleware:
    """Pure ASGI: sets state, and adds a header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-own", b"1")]
            await send(message)

        scope.setdefault("state", {})["own"] = "state"
        await self.app(scope, receive, adding_send)


class GuardedRoute(APIRoute):
    def get_route_handler(self) -> Handler:
        original = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.headers.get("x-key") != "right":
                return JSONResponse({"guard": "closed"}, 403)
            response = await original(request)
            response.headers["X-Guard"] = "open"
            return response

        return handle


async def user(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    return credentials.username


async def session() -> AsyncIterator[list[str]]:
    yield ["session"]


SessionDep = Annotated[list[str], Depends(session, scope="function")]


def things_router(route_class: type[APIRoute]) -> APIRouter:
    router = APIRouter(prefix="/things", route_class=route_class)
    things: dict[int, Thing] = {}

    @router.get("")
    async def list_things(filters: Annotated[Filters, Query()], session: SessionDep) -> list[Thing]:
        return [*things.values()][: filters.limit]

    @router.post("", status_code=201)
    async def create_thing(thing: Thing, request: Request, response: Response, tasks: BackgroundTasks) -> Thing:
        things[len(things)] = thing
        response.headers["Location"] = str(request.url_for("get_thing", id=len(things) - 1))
        tasks.add_task(lambda: thing.name)
        return thing

    @router.post("/two")
    async def create_two(one: Thing, two: Thing, factor: Annotated[int, Body()] = 2) -> list[Thing | int]:
        return [one, two, factor]

    @router.get("/{id:digits}")
    async def get_thing(id: int, accept: Annotated[str, Header()], theme: Annotated[str, Cookie()] = "") -> Any:
        if id not in things:
            raise OwnError(f"no {id} in {accept} {theme}")
        return things[id]

    @router.head("/{id:digits}")
    async def head_thing(id: int, response: Response) -> None:
        response.status_code = 200 if id in things else 404
        response.headers["X-Head"] = "own"

    @router.delete("/{id:digits}")
    async def delete_thing(id: int, response: Response, user: Annotated[str, Depends(user)]) -> dict[str, str] | None:
        if things.pop(id, None) is None:
            return {"user": user}
        response.status_code = 204
        return None

    @router.post("/fail/{how}")
    async def fail(how: str, data: Annotated[Any, Body()]) -> None:
        raise {"own": OwnError("own"), "teapot": HTTPException(418), "bug": RuntimeError("bug")}[how]

    @router.put("/upload")
    async def upload(request: Request) -> dict[str, Any]:
        digest, size = sha256(), 0
        async for chunk in request.stream():
            digest.update(chunk)
            size += len(chunk)
        return {"size": size, "sha256": digest.hexdigest()}

    @router.websocket("/echo")
    async def echo(websocket: WebSocket, session: SessionDep, word: str = "none") -> None:
        await websocket.accept()
        await websocket.send_text(f"{word} {session} {await websocket.receive_text()}")
        await websocket.close(4000)

    return router


def extend(app: FastAPI, route_class: type[APIRoute], files: Path) -> FastAPI:
    """Everything that a service may add."""
    app.add_middleware(OwnMiddleware)

    @app.middleware("http")
    async def reading(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if "x-refuse" in request.headers:
            return PlainTextResponse("refused by middleware", 400)
        size = len(await request.body()) if request.method == "POST" else 0
        response = await call_next(request)
        response.headers["X-Size"] = str(size)
        return response

    @app.exception_handler(OwnError)
    async def own_error(request: Request, error: OwnError) -> Response:
        return JSONResponse({"own": str(error), "body": (await request.body()).decode()}, 409)

    @app.exception_handler(418)
    def teapot(request: Request, error: Exception) -> Response:
        return PlainTextResponse("teapot", 418)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return JSONResponse({"bug": str(error)}, 500)

    @app.api_route("/methods", methods=["GET", "HEAD", "PATCH"])
    async def methods(request: Request) -> dict[str, Any]:
        return {"method": request.method, "own": request.state.own}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse((f"{number}\n" for number in range(3)), media_type="text/plain")

    @app.get("/redirect", status_code=307)
    async def redirect() -> RedirectResponse:
        return RedirectResponse("/methods")

    @app.get("/thread")
    def thread(request: Request) -> dict[str, str]:
        return {"base": str(request.base_url), "root": request.scope["root_path"]}

    app.include_router(things_router(route_class))
    guarded = APIRouter(prefix="/guarded", route_class=GuardedRoute)
    guarded.add_api_route("", thread)
    outer = APIRouter(prefix="/outer", dependencies=[Depends(user)])
    outer.include_router(guarded)
    outer.include_router(things_router(route_class), prefix="/inner")
    app.include_router(outer)
    app.include_router(guarded)

    sub = FastAPI(openapi_url=None)
    sub.include_router(things_router(route_class))

    @sub.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"sub": [each["loc"] for each in error.errors()], "body": error.body}, 400)

    @sub.exception_handler(OwnError)
    async def sub_error(request: Request, error: OwnError) -> Response:
        return JSONResponse({"sub": str(error)}, 410)

    async def starlette_route(request: Request) -> Response:
        return PlainTextResponse(f"starlette {request.url.path} {request.scope['root_path']}")

    app.mount("/sub", sub)
    app.mount("/starlette", Starlette(routes=[Route("/route/{id:digits}", starlette_route)]))
    app.mount("/files", StaticFiles(directory=files))
    return app


@pytest.fixture
def apps(tmp_path: Path) -> tuple[FastAPI, FastAPI]:
    (tmp_path / "a.txt").write_text("a file")
    plain = FastAPI(openapi_url=None, redirect_slashes=False)
    return extend(build(), FastRoute, tmp_path), extend(plain, APIRoute, tmp_path)


A, B = {"name": "a"}, {"name": "b", "size": 2}
JSON = {"Content-Type": "application/json"}
AUTH = ("ann", "secret")
KEY = {"X-Key": "right"}
BASES: dict[str, dict[str, Any]] = {"/things": {}, "/outer/inner/things": {"auth": AUTH}, "/sub/things": {}}
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    request
    for base, more in BASES.items()
    for request in (
        ("POST", base, {"json": A, **more}),
        ("POST", base, {"content": b'{"name": "b", "size": 2, "size": 3}', "headers": JSON, **more}),
        ("POST", f"{base}/two", {"json": {"one": A, "two": B}, **more}),
        ("GET", f"{base}?limit=1&tags=a&tags=b", more),
        ("GET", f"{base}/1", {"cookies": {"theme": "dark"}, **more}),
        ("GET", f"{base}/9", {"headers": {"Accept": "text/x"}, **more}),
        ("HEAD", f"{base}/1", more),
        ("HEAD", f"{base}/9", more),
        ("DELETE", f"{base}/0", {"auth": AUTH}),
        ("DELETE", f"{base}/0", {"auth": AUTH}),
        ("POST", f"{base}/fail/own", {"content": b"[1e400]", "headers": JSON, **more}),
        ("PUT", f"{base}/upload", {"content": b"x" * 100_000, **more}),
    )
]
REQUESTS += [
    ("POST", "/things/fail/teapot", {"json": 1}),
    ("POST", "/things/fail/bug", {"json": 1}),
    ("POST", "/sub/things", {"json": {"name": 1}}),
    ("GET", "/sub/things/x", {}),
    *((method, "/methods", {}) for method in ("GET", "HEAD", "PATCH")),
    ("GET", "/stream", {}),
    ("GET", "/redirect", {}),
    ("GET", "/thread", {}),
    *(
        ("GET", path, {"headers": headers, "auth": AUTH})
        for path in ("/guarded", "/outer/guarded")
        for headers in ({}, KEY)
    ),
    ("GET", "/starlette/route/7", {}),
    ("GET", "/files/a.txt", {}),
    ("HEAD", "/files/a.txt", {}),
    ("POST", "/things", {"json": A, "headers": {"X-Refuse": "1"}}),
]
# Here plinth answers with a problem, FastAPI with JSON of its own.
STATUS_ONLY: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/nothing", {}),
    ("GET", "/files/b.txt", {}),
    ("PATCH", "/things", {}),
    ("POST", "/things", {"json": {"name": 1}}),
    ("GET", "/things?limit=x", {}),
    ("DELETE", "/things/0", {}),
    ("GET", "/outer/guarded", {"headers": KEY}),
]
OWN_HEADERS = ("x-own", "x-size", "x-head", "x-guard", "location", "allow", "content-type", "www-authenticate")


async def exchange(app: ASGIApp, method: str, path: str, root_path: str = "", **request: Any) -> tuple[Any, ...]:
    transport = ASGITransport(app, root_path=root_path, raise_app_exceptions=False)
    cookies = request.pop("cookies", None)
    async with AsyncClient(transport=transport, base_url="http://test", cookies=cookies) as client:
        response = await client.request(method, root_path + path, **request)
    return response.status_code, response.content, {name: response.headers.get(name) for name in OWN_HEADERS}


@pytest.mark.parametrize("root_path", ["", "/behind/a/proxy"])
async def test_what_a_user_adds_answers_as_in_a_plain_app(apps: tuple[FastAPI, FastAPI], root_path: str) -> None:
    ours, plain = apps
    for method, path, more in REQUESTS:
        expected = await exchange(plain, method, path, root_path, **more)
        received = await exchange(ours, method, path, root_path, **more)
        # A plain app sends a 500 outside of all middleware, so that the user's headers are missing.
        compared = 2 if expected[0] == 500 else 3
        assert received[:compared] == expected[:compared], (method, path)
        assert expected[0] != 422, (method, path)
    for method, path, more in STATUS_ONLY:
        expected = await exchange(plain, method, path, root_path, **more)
        assert (await exchange(ours, method, path, root_path, **more))[0] == expected[0] >= 400, (method, path)


async def test_overrides_act_on_the_app_that_has_them(apps: tuple[FastAPI, FastAPI]) -> None:
    for app in apps:
        app.dependency_overrides[user] = lambda: "overridden"
        assert (await exchange(app, "DELETE", "/things/9"))[:2] == (200, b'{"user":"overridden"}')
        assert (await exchange(app, "DELETE", "/sub/things/9"))[0] == 401
        app.dependency_overrides = {}
        assert (await exchange(app, "DELETE", "/things/9"))[0] == 401


async def test_websockets(apps: tuple[FastAPI, FastAPI]) -> None:
    for path in ("/things/echo", "/sub/things/echo"):
        ours, plain = [await talk(app, path, "word=a") for app in apps]
        assert ours == plain
        assert [message["type"] for message in plain] == ["websocket.accept", "websocket.send", "websocket.close"]
        assert plain[1]["text"] == "a ['session'] hello"
        assert [message["type"] for message in await talk(apps[0], "/nothing", "")] == ["websocket.close"]


async def talk(app: ASGIApp, path: str, query: str) -> list[Message]:
    sent: list[Message] = []
    incoming = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}])

    async def receive() -> Message:
        return next(incoming, {"type": "websocket.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "root_path": "", "query_string": query.encode(), "headers": []}
    await app(scope | {"scheme": "ws", "subprotocols": [], "asgi": {"spec_version": "2.4"}}, receive, send)
    return sent
