"""Validators: the same on every kind of route, from the uncompressed body, never by holding back a stream."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from httpx import AsyncClient
from pydantic import BaseModel
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Message

from plinth.cache import cached_response
from plinth.http import Validators, ValidatorsMiddleware
from tests.plinth.http.apps import answering, build, client, http_scope, messages

AT = datetime(2026, 11, 21, 8, 5, 6, 999, UTC)
DATE = "Sat, 21 Nov 2026 08:05:06 GMT"
VALIDATORS = ("ETag", "Last-Modified", "Cache-Control")


@pytest.mark.parametrize("at", [AT, AT.astimezone(timezone(timedelta(hours=-9)))])
async def test_last_modified_is_in_gmt(at: datetime) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Validators(Request(scope)).set(7, at)
        await answering(b"a", headers={"Content-Length": "1"})(scope, receive, send)

    start, _ = await messages(ValidatorsMiddleware(app), http_scope())
    assert dict(start["headers"])[b"last-modified"].decode() == DATE


class Row(BaseModel):
    version: int = 7
    text: str = "a" * 2000


async def get_validators(request: Request) -> Validators:
    return Validators(request)


ValidatorsDep = Annotated[Validators, Depends(get_validators)]


@cached_response(ttl=60, tags=[], max_age=9)
async def get_row(validators: ValidatorsDep) -> Row:
    validators.set(7, AT)
    return Row()


@cached_response(ttl=60, tags=[], max_age=9)
async def starlette_endpoint(request: Request) -> Response:
    Validators(request).set(7, AT)
    return PlainTextResponse("a" * 2000)


class LoggingRoute(APIRoute):
    """A route class as FastAPI's manual shows it, which makes its own request and response."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await handler(Request(request.scope, request.receive))
            return Response(response.body, response.status_code, media_type="application/json")

        return handle


def app_with_rows() -> FastAPI:
    """Serve the same row by every kind of route."""
    app = build()
    app.get("/api")(get_row)
    router = APIRouter(prefix="/outer")
    inner = APIRouter(prefix="/inner", route_class=LoggingRoute)
    inner.get("/class")(get_row)
    router.include_router(inner)
    app.include_router(router)
    app.router.routes.append(Route("/starlette", starlette_endpoint))
    app.router.routes.append(Mount("/mount", routes=[Route("/starlette", starlette_endpoint)]))
    mounted = FastAPI()
    mounted.get("/api")(get_row)
    app.mount("/mounted", mounted)

    @app.patch("/api")
    async def change_row(validators: ValidatorsDep) -> Row:
        validators.set(7, AT)
        return Row()

    @app.post("/api", status_code=201)
    async def create_row(validators: ValidatorsDep) -> Row:
        validators.set(7, AT)
        return Row()

    @app.get("/missing")
    @cached_response(ttl=60, tags=[])
    async def get_missing(validators: ValidatorsDep) -> Response:
        validators.set(7, AT)
        return PlainTextResponse("no", 404)

    @app.get("/list")
    @cached_response(ttl=60, tags=[])
    async def list_rows() -> list[int]:
        return [1, 2, 3]

    @app.get("/uncached")
    async def uncached() -> list[int]:
        return [1, 2, 3]

    @app.get("/own")
    @cached_response(ttl=60, tags=[])
    async def own() -> Response:
        return Response("own", headers={"ETag": '"own"', "Cache-Control": "private"})

    @app.get("/own-cache-control")
    @cached_response(ttl=60, tags=[])
    async def own_cache_control() -> Response:
        return Response("own", headers={"Cache-Control": "private"})

    @app.get("/cookie")
    @cached_response(ttl=60, tags=[])
    async def cookie() -> Response:
        return Response("own", headers={"Set-Cookie": "a=b"})

    @app.get("/stream")
    @cached_response(ttl=60, tags=[])
    async def stream(validators: ValidatorsDep) -> Response:
        validators.set(7, AT)
        return StreamingResponse(iter([b"1", b"2"]))

    return app


@pytest.fixture
async def rows() -> AsyncIterator[AsyncClient]:
    async with client(app_with_rows()) as session:
        session.headers["Accept-Encoding"] = "identity"
        yield session


PATHS = ("/api", "/outer/inner/class", "/starlette", "/mount/starlette", "/mounted/api")


@pytest.mark.parametrize("path", PATHS)
async def test_every_kind_of_route_gets_validators(rows: AsyncClient, path: str) -> None:
    response = await rows.get(path)
    etag = response.headers["ETag"]
    assert re.fullmatch(r'"7\.[0-9a-f]{16}"', etag)
    assert (response.headers["Last-Modified"], response.headers["Cache-Control"]) == (DATE, "public, max-age=9")
    compressed = await rows.get(path, headers={"Accept-Encoding": "gzip"})
    assert (compressed.headers["ETag"], compressed.headers["Content-Encoding"]) == (etag[:-1] + '-gzip"', "gzip")
    for condition in (etag, compressed.headers["ETag"]):
        unchanged = await rows.get(path, headers={"If-None-Match": condition})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", etag)
        assert (unchanged.headers["Vary"], "Content-Length" in unchanged.headers) == ("Accept-Encoding", False)
    unchanged = await rows.get(path, headers={"If-None-Match": etag, "Accept-Encoding": "gzip"})
    assert (unchanged.status_code, unchanged.headers["ETag"]) == (304, compressed.headers["ETag"])


async def test_head_gets_the_validators_of_get(rows: AsyncClient) -> None:
    responses = [await rows.request(method, "/api") for method in ("GET", "HEAD")]
    etags, dates, policies = ([one.headers[name] for one in responses] for name in VALIDATORS)
    assert (etags[0], dates[0], policies[0]) == (etags[1], dates[1], policies[1])


@pytest.mark.parametrize(("method", "status"), [("PATCH", 200), ("POST", 201)])
async def test_a_change_gets_the_etag_that_get_would_send(rows: AsyncClient, method: str, status: int) -> None:
    etag = (await rows.get("/api")).headers["ETag"]
    changed = await rows.request(method, "/api", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.headers["ETag"], changed.headers["Last-Modified"]) == (status, etag, DATE)
    assert "Cache-Control" not in changed.headers


async def test_a_cached_response_without_a_row_gets_a_hash(rows: AsyncClient) -> None:
    response = await rows.get("/list")
    assert re.fullmatch(r'"[0-9a-f]{16}"', response.headers["ETag"])
    assert response.headers["Cache-Control"] == "public, no-cache"
    assert "Last-Modified" not in response.headers


async def test_headers_that_an_endpoint_sets_are_kept(rows: AsyncClient) -> None:
    own = await rows.get("/own")
    assert (own.headers["ETag"], own.headers["Cache-Control"]) == ('"own"', "private")
    own = await rows.get("/own-cache-control")
    assert (own.headers["ETag"][:1], own.headers["Cache-Control"]) == ('"', "private")


@pytest.mark.parametrize("path", ["/uncached", "/stream", "/cookie", "/missing"])
async def test_other_responses_get_none(rows: AsyncClient, path: str) -> None:
    response = await rows.get(path)
    assert not {"etag", "last-modified", "cache-control"} & response.headers.keys()


async def test_the_start_of_a_stream_is_not_held_back() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        Validators(Request(scope)).set(7, AT)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert len(sent) == 1

    await ValidatorsMiddleware(stream)(http_scope(), None, send)  # type: ignore[arg-type]
    assert len(sent) == 1


async def test_a_body_in_two_messages_gets_none() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Validators(Request(scope)).set(7, AT)
        await answering(b"a", b"b", headers={"Content-Length": "2"})(scope, receive, send)

    start, *bodies = await messages(ValidatorsMiddleware(app), http_scope())
    assert start["headers"] == [(b"content-length", b"2")]
    assert [message["body"] for message in bodies] == [b"a", b"b"]


async def test_websockets_and_the_lifespan_pass() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": scope["type"]})

    assert await messages(ValidatorsMiddleware(app), {"type": "lifespan"}) == [{"type": "lifespan"}]


KEY = APIKeyHeader(name="X-Key")


async def get_user(key: Annotated[str, Depends(KEY)]) -> str:
    return key


@pytest.mark.parametrize("secured", ["", "route", "router", "inner", "app"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Cookie": "a=b"}])
@pytest.mark.parametrize("own", [None, "max-age=9", "Expires"])
@pytest.mark.parametrize("sends", ["row", "etag", "date", "nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_nothing_with_validators_is_fresh_and_what_is_private_says_so(
    secured: str, headers: dict[str, str], own: str | None, sends: str, method: str
) -> None:
    app = build()
    dependencies = [Depends(get_user)]
    router = APIRouter(dependencies=dependencies if secured == "inner" else [])

    @(app if secured == "app" else router).get("/", dependencies=dependencies if secured in {"route", "app"} else [])
    async def endpoint(response: Response, validators: ValidatorsDep) -> Row:
        if sends == "row":
            validators.set(7, AT)
        elif sends != "nothing":
            response.headers["ETag" if sends == "etag" else "Last-Modified"] = '"a"' if sends == "etag" else DATE
        if own is not None:
            response.headers["Expires" if own == "Expires" else "Cache-Control"] = DATE if own == "Expires" else own
        return Row()

    app.include_router(router, dependencies=dependencies if secured == "router" else [])
    async with client(app) as session:
        response = await session.request(method, "/", headers={**headers, "X-Key": "k"})
    private = bool(headers) or (bool(secured) and sends != "nothing")
    expected: str | None = "private, no-cache" if private else ("no-cache" if sends != "nothing" else None)
    if own is not None:
        expected = None if own == "Expires" else own
    assert (response.status_code, response.headers.get("Cache-Control")) == (200, expected)
