"""Errors as clients see them: problems with a sentence, faults with a pointer, and nothing internal."""

import asyncio
import logging
from enum import Enum
from typing import Annotated, Any, Literal
from urllib.parse import unquote
from uuid import UUID

import pytest
from fastapi import APIRouter, Body, FastAPI, Header, HTTPException, Path, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from httpx import ASGITransport, AsyncClient, Response
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.types import Message

from plinth.errors import AppError, ConflictError, InvalidError, NotFoundError, OutcomeUnknownError, UnavailableError
from plinth.http import FastRoute, exception_handlers
from plinth.http.faults import pointer
from tests.plinth.http.apps import JSON, build, client, http_scope, messages

SECRET = "hunter2"
TOO_LARGE = "The request body is too large. At most 262144 bytes are allowed here."


def validated(text: str) -> str:
    if text == "!":
        raise ValueError("Say something")
    if text == "?":
        raise AssertionError("Ask something")
    return text


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: int


class Square(BaseModel):
    kind: Literal["square"]
    side: int


class Color(Enum):
    RED = "red"


class Thing(BaseModel, extra="forbid"):
    name: Annotated[str, Field(max_length=5), AfterValidator(validated)] = "x"
    size: int | list[int] = 1
    parts: list[Circle] = []
    shape: Annotated[Circle | Square, Field(discriminator="kind")] | None = None
    either: Circle | Square | None = None
    prices: dict[str, int] = {}
    color: Color = Color.RED
    id: UUID | None = None


class BrokenError(Exception):
    pass


class StockError(ConflictError):
    pass


def make_app() -> FastAPI:
    app = build()
    router = APIRouter()

    @app.post("/things")
    async def create(thing: Thing) -> None: ...

    @app.post("/two")
    async def create_two(thing: Thing, number: Annotated[int, Body()]) -> None: ...

    @app.get("/things/{id}")
    async def get(
        id: Annotated[int, Path()], limit: Annotated[int, Query()] = 1, x_level: Annotated[int, Header()] = 1
    ) -> None: ...

    @app.delete("/things")
    async def delete() -> None: ...

    @router.put("/things")
    async def replace() -> None: ...

    @app.get("/raise/{name}")
    async def fail(name: str, cursor: str | None = None) -> None:
        errors: dict[str, Exception] = {
            "invalid": InvalidError("price", "The price is below the cost."),
            "cursor": InvalidError("cursor", "The cursor is not valid."),
            "name": InvalidError("name", "No such name."),
            "missing": NotFoundError("thing", 42),
            "conflict": StockError("There is not enough of it."),
            "app": AppError("Not like this."),
            "unauthorized": HTTPException(401, "Log in first.", {"WWW-Authenticate": "Bearer"}),
            "teapot": HTTPException(418),
            "large": HTTPException(413),
            "long": HTTPException(414),
            "unnamed": HTTPException(499),
            "unchanged": HTTPException(304, headers={"ETag": '"1"'}),
            "moved": HTTPException(307, headers={"Location": "/elsewhere"}),
            "unhandled": BrokenError(SECRET),
            "group": ExceptionGroup(SECRET, [BrokenError(SECRET)]),
            "half": ConflictError("Half a \ud83d."),
        }
        if name == "unavailable":
            raise UnavailableError("The database is away.") from BrokenError("connection refused")
        raise errors[name]

    @app.get("/late")
    async def fail_late() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"one"
            raise BrokenError(SECRET)

        return StreamingResponse(chunks())

    @app.post("/raw")
    async def read_raw(request: Request) -> int:
        return len(await request.body())

    app.include_router(router)
    return app


@pytest.fixture
async def erring() -> Any:
    async with client(make_app()) as session:
        yield session


def assert_problem(response: Response, status: int, kind: str, title: str, detail: str) -> list[dict[str, str]]:
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    faults: list[dict[str, str]] = problem.pop("errors", [])
    assert problem == {
        "type": f"urn:problem-type:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": response.headers["X-Request-ID"],
    }
    return faults


def fault(location: str, pointer: str, detail: str) -> dict[str, str]:
    return {"location": location, "pointer": pointer, "detail": detail}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", (404, "not-found", "Not found", "Thing 42 does not exist.")),
        ("conflict", (409, "conflict", "Conflict", "There is not enough of it.")),
        ("app", (400, "bad-request", "Bad request", "Not like this.")),
        ("unauthorized", (401, "unauthorized", "Unauthorized", "Log in first.")),
        ("teapot", (418, "i-m-a-teapot", "I'm a teapot", "I'm a teapot.")),
        ("large", (413, "content-too-large", "Content too large", TOO_LARGE)),
        ("long", (414, "uri-too-long", "URI too long", "URI too long.")),
        ("unnamed", (499, "error", "Error", "Error.")),
        ("half", (409, "conflict", "Conflict", "Half a ?.")),
    ],
)
async def test_an_exception_becomes_a_problem(
    erring: AsyncClient, name: str, expected: tuple[int, str, str, str]
) -> None:
    assert assert_problem(await erring.get(f"/raise/{name}"), *expected) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/raise/invalid", fault("body", "#/price", "The price is below the cost.")),
        ("/raise/cursor?cursor=x", fault("query", "#/cursor", "The cursor is not valid.")),
        ("/raise/name", fault("path", "#/name", "No such name.")),
    ],
)
async def test_an_invalid_field_has_the_location_where_it_was_sent(
    erring: AsyncClient, address: str, expected: dict[str, str]
) -> None:
    detail = expected["detail"]
    response = await erring.get(address)
    assert assert_problem(response, 422, "validation-failed", "Validation failed", detail) == [expected]


async def test_unavailable_has_retry_after_and_logs_the_cause(
    erring: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await erring.get("/raise/unavailable")
    assert_problem(response, 503, "service-unavailable", "Service unavailable", "The database is away.")
    assert response.headers["Retry-After"] == "1"
    assert "connection refused" in caplog.text
    assert "connection refused" not in response.text


async def test_the_headers_of_an_http_exception_are_kept(erring: AsyncClient) -> None:
    assert (await erring.get("/raise/unauthorized")).headers["WWW-Authenticate"] == "Bearer"


async def test_an_http_exception_below_400_has_no_body(erring: AsyncClient) -> None:
    unchanged, moved = await erring.get("/raise/unchanged"), await erring.get("/raise/moved")
    assert (unchanged.status_code, unchanged.headers["ETag"], unchanged.content) == (304, '"1"', b"")
    assert (moved.status_code, moved.headers["Location"], moved.content) == (307, "/elsewhere", b"")


async def test_an_unknown_url_is_404(erring: AsyncClient) -> None:
    response = await erring.get("/nothing")
    assert_problem(response, 404, "not-found", "Not found", "There is no resource at this URL.")


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
async def test_an_unknown_method_is_405_and_allow_lists_the_methods_of_all_routes(
    erring: AsyncClient, method: str
) -> None:
    response = await erring.request(method, "/things")
    assert response.status_code == 405
    assert response.headers["Allow"] == "DELETE, POST, PUT"


async def test_validation_lists_every_fault_and_its_place(erring: AsyncClient) -> None:
    response = await erring.get("/things/x?limit=y", headers={"X-Level": "z"})
    sentence = "Input should be a valid integer, unable to parse string as an integer"
    detail = "The request is not valid. See `errors`."
    assert assert_problem(response, 422, "validation-failed", "Validation failed", detail) == [
        fault("path", "#/id", sentence),
        fault("query", "#/limit", sentence),
        fault("header", "#/x-level", sentence),
    ]


async def faults(erring: AsyncClient, body: Any, address: str = "/things") -> list[tuple[str, str]]:
    response = await erring.post(address, json=body)
    assert response.status_code == 422, response.text
    assert {entry["location"] for entry in response.json()["errors"]} == {"body"}
    return [(entry["pointer"], entry["detail"]) for entry in response.json()["errors"]]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], ["#"]),
        ({"name": "too long"}, ["#/name"]),
        ({"parts": [{"kind": "circle", "radius": 1}, {"kind": "circle"}]}, ["#/parts/1/radius"]),
        ({"size": "x"}, ["#/size", "#/size"]),
        ({"size": [1, "x"]}, ["#/size", "#/size/1"]),
        ({"shape": {"kind": "circle", "radius": "x"}}, ["#/shape/radius"]),
        ({"shape": {"kind": "oval"}}, ["#/shape"]),
        ({"either": {"kind": "circle"}}, ["#/either/radius", "#/either/kind", "#/either/side"]),
        ({"prices": {"a/b~c d%é": "x"}}, ["#/prices/a~1b~0c%20d%25%C3%A9"]),
        ({"extra": 1, "/": 2}, ["#/extra", "#/~1"]),
        ({"": 1}, ["#/"]),
    ],
)
async def test_a_pointer_resolves_in_the_body_that_was_sent(
    erring: AsyncClient, body: Any, pointers: list[str]
) -> None:
    assert [pointer for pointer, _ in await faults(erring, body)] == pointers


async def test_a_pointer_resolves_in_a_body_of_two_parameters(erring: AsyncClient) -> None:
    body = {"thing": {"name": 1}}
    assert [pointer for pointer, _ in await faults(erring, body, "/two")] == ["#/thing/name", "#/number"]


@pytest.mark.parametrize(
    ("content", "pointer"), [(b'{"\\ud83d": 1}', "#"), (b'{"prices": {"\\ud83d": "x"}}', "#/prices")]
)
async def test_an_unpaired_surrogate_in_a_key_is_handled(erring: AsyncClient, content: bytes, pointer: str) -> None:
    response = await erring.post("/things", content=content, headers=JSON)
    assert [entry["pointer"] for entry in response.json()["errors"]] == [pointer]


@example(keys=["\ud83d", "~1", "/"])
@given(keys=st.lists(st.text(st.characters(exclude_categories=()), min_size=1)))
def test_a_pointer_is_a_uri_fragment_that_decodes_to_its_keys(keys: list[str]) -> None:
    fragment = pointer(keys)
    assert fragment.isascii()
    assert not set(fragment[1:]) & set('#<>"{}|\\^` ')
    decoded = [unquote(token, errors="surrogatepass") for token in fragment.removeprefix("#").split("/")[1:]]
    assert [token.replace("~1", "/").replace("~0", "~") for token in decoded] == keys


async def test_the_input_is_not_quoted(erring: AsyncClient) -> None:
    evil = "<evil>"
    for body in ({"shape": {"kind": evil}}, {"id": evil}, {"color": evil}, {"size": evil}, {"name": evil}):
        response = await erring.post("/things", json=body)
        assert response.status_code == 422
        assert "<" not in response.text
    assert (await faults(erring, {"shape": {"kind": evil}}))[0][1] == (
        "Input should have 'kind' set to one of 'circle', 'square'"
    )


@pytest.mark.parametrize(("name", "detail"), [("!", "Say something"), ("?", "Ask something")])
async def test_a_validators_message_has_no_prefix(erring: AsyncClient, name: str, detail: str) -> None:
    assert await faults(erring, {"name": name}) == [("#/name", detail)]


async def test_at_most_a_hundred_faults_are_listed(erring: AsyncClient) -> None:
    assert len(await faults(erring, {"parts": [1] * 5000})) == 100


async def test_a_missing_body_is_a_fault(erring: AsyncClient) -> None:
    response = await erring.post("/things", headers=JSON)
    assert response.status_code == 422
    assert response.json()["errors"] == [fault("body", "#", "A request body is required")]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b'{"name": }', "The request body is not valid JSON: Expecting value (character 9)."),
        (b"\xff\x80", "The request body is not valid UTF-8."),
        (b"[" * 100_000, "The request body is nested too deeply."),
        (b"9" * 5000, "A number in the request body is too long."),
    ],
)
async def test_a_body_that_is_not_json_is_400(erring: AsyncClient, content: bytes, detail: str) -> None:
    response = await erring.post("/things", content=content, headers=JSON)
    assert assert_problem(response, 400, "bad-request", "Bad request", detail) == []


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/octet-stream"}])
@pytest.mark.parametrize("address", ["/things", "/two"])
async def test_json_without_its_content_type_is_415(erring: AsyncClient, address: str, headers: dict[str, str]) -> None:
    response = await erring.post(address, content=b'{"name": "x"}', headers=headers)
    detail = "The request body must be JSON with `Content-Type: application/json`."
    assert_problem(response, 415, "unsupported-media-type", "Unsupported media type", detail)
    assert response.headers["Accept"] == "application/json"


@pytest.mark.parametrize("name", ["unhandled", "group"])
async def test_an_unhandled_error_is_a_500_without_details_and_is_logged_once(
    erring: AsyncClient, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    response = await erring.get(f"/raise/{name}", headers={"X-Request-ID": "abc"})
    detail = "An unexpected error occurred. Quote the request id when you report it."
    assert_problem(response, 500, "internal-error", "Internal error", detail)
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert record.getMessage() == f"Unhandled error in GET /raise/{name}"


async def test_an_error_after_the_response_started_is_raised_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokenError):
        # In a task of its own, whose request id remains for the line of the server.
        await asyncio.create_task(messages(make_app(), http_scope("/late")))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("path", ["/raw", "/things"])
async def test_a_client_that_disconnects_gets_no_response_and_logs_no_error(
    caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    assert await messages(make_app(), http_scope(path, "POST", content_type="application/json"), gone) == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_disconnects_during_the_response_raises_no_error() -> None:
    async def gone(message: Message) -> None:
        raise OSError

    await make_app()(http_scope("/late"), never, gone)


async def never() -> Message:
    raise ClientDisconnect


async def test_the_lifespan_passes() -> None:
    assert await messages(make_app(), {"type": "lifespan"}, startup_then_shutdown()) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def startup_then_shutdown() -> Any:
    kinds = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Message:
        return {"type": next(kinds)}

    return receive


@pytest.mark.parametrize("key", [500, Exception])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_handler_of_the_service_replaces_the_500(key: Any, asynchronous: bool) -> None:
    def respond(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url.path} {error}", 500)

    async def respond_async(request: Request, error: Exception) -> PlainTextResponse:
        return respond(request, error)

    app = make_app()
    app.add_exception_handler(key, respond_async if asynchronous else respond)
    async with client(app) as session:
        response = await session.get("/raise/unhandled")
    assert (response.status_code, response.text) == (500, f"/raise/unhandled {SECRET}")
    assert "X-Request-ID" in response.headers


async def test_a_handler_of_the_service_replaces_a_problem() -> None:
    async def respond(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(str(error), 410)

    app = make_app()
    app.add_exception_handler(NotFoundError, respond)
    async with client(app) as session:
        response = await session.get("/raise/missing")
    assert (response.status_code, response.text) == (410, "Thing 42 does not exist.")


@pytest.mark.parametrize(
    ("body", "value", "place"),
    [
        ({"category_id": 9}, "9", "#/category_id"),
        ({"categoryId": 9}, "9", "#/categoryId"),
        ({"product": {"category_id": 9}}, None, "#/product/category_id"),
        ({"items": [{"category_id": 1}, {"category_id": 9}]}, "9", "#/items/1/category_id"),
        ({"category_id": 1, "items": [{"category_id": 9}]}, "9", "#/items/0/category_id"),
        ([{"category_id": 1}, {"category_id": 9}], None, "#/0/category_id"),
        ({"name": "without it"}, "9", "#/category_id"),
        ("text", None, "#/category_id"),
    ],
)
@pytest.mark.parametrize("route_class", [APIRoute, FastRoute])
async def test_an_invalid_field_is_pointed_to_wherever_the_body_has_it(
    route_class: type[APIRoute], body: Any, value: str | None, place: str
) -> None:
    app = FastAPI(exception_handlers=exception_handlers)
    router = APIRouter(route_class=route_class)

    @router.post("/")
    async def create(data: Any = Body()) -> None:
        raise InvalidError("category_id", "It does not exist.", value)

    app.include_router(router)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as session:
        answer = await session.post("/", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"location": "body", "pointer": place, "detail": "It does not exist."}]


@pytest.mark.parametrize(("error", "status"), [(ConflictError("No."), 409), (InvalidError("count", "No."), 422)])
async def test_an_error_may_say_which_part_of_the_body_is_meant(error: AppError, status: int) -> None:
    app = FastAPI(exception_handlers=exception_handlers)

    @app.post("/")
    async def create(data: Any = Body()) -> None:
        raise error.at("lines", 1, "count")

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as session:
        answer = await session.post("/", json={"lines": [{"count": 1}, {"count": 2}]})
    assert answer.status_code == status
    assert answer.json()["errors"] == [{"location": "body", "pointer": "#/lines/1/count", "detail": "No."}]


async def test_an_unknown_outcome_is_a_problem_of_its_own_and_says_nothing_of_repeating() -> None:
    app = FastAPI(exception_handlers=exception_handlers)

    @app.post("/")
    async def create() -> None:
        raise OutcomeUnknownError("It may have been stored.")

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as session:
        answer = await session.post("/")
    assert answer.status_code == 503
    assert "retry-after" not in answer.headers
    assert answer.json()["type"] == "urn:problem-type:outcome-unknown"
    assert answer.json()["title"] == "Outcome unknown"
