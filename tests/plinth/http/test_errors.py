import logging
from enum import Enum
from typing import Annotated, Any, Literal
from urllib.parse import unquote
from uuid import UUID

import pytest
from fastapi import APIRouter, Body, FastAPI, Header, HTTPException, Path, Query, Request
from fastapi.responses import StreamingResponse
from httpx import AsyncClient, Response
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.types import Message

from plinth.errors import AppError, ConflictError, InvalidError, NotFoundError, UnavailableError
from plinth.http.errors import _pointer
from tests.plinth.http.apps import JSON, build, client, http_scope, messages

SECRET = "hunter2"


def wordy(text: str) -> str:
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
    name: Annotated[str, Field(max_length=5), AfterValidator(wordy)] = "x"
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
            "cursor": InvalidError("cursor", "The cursor is not one of ours."),
            "name": InvalidError("name", "No such name."),
            "missing": NotFoundError("thing", 42),
            "conflict": StockError("There is not enough of it."),
            "app": AppError("Not like this."),
            "unauthorized": HTTPException(401, "Log in first.", {"WWW-Authenticate": "Bearer"}),
            "teapot": HTTPException(418),
            "large": HTTPException(413),
            "unnamed": HTTPException(499),
            "detail": HTTPException(403, {"reason": SECRET}),
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
async def asked() -> Any:
    async with client(make_app()) as session:
        yield session


def assert_problem(answer: Response, status: int, kind: str, title: str, detail: str) -> list[dict[str, str]]:
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    faults: list[dict[str, str]] = problem.pop("errors", [])
    assert problem == {
        "type": f"urn:problem-type:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": answer.headers["X-Request-ID"],
    }
    return faults


def fault(location: str, pointer: str, detail: str) -> dict[str, str]:
    return {"location": location, "pointer": pointer, "detail": detail}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", (404, "not-found", "Not found", "There is no thing 42.")),
        ("conflict", (409, "conflict", "Conflict", "There is not enough of it.")),
        ("app", (400, "bad-request", "Bad request", "Not like this.")),
        ("unauthorized", (401, "unauthorized", "Unauthorized", "Log in first.")),
        ("teapot", (418, "i-m-a-teapot", "I'm a teapot", "I'm a teapot.")),
        ("large", (413, "content-too-large", "Content too large", "Content too large.")),
        ("unnamed", (499, "error", "Error", "Error.")),
        ("detail", (403, "forbidden", "Forbidden", "Forbidden.")),
        ("half", (409, "conflict", "Conflict", "Half a ?.")),
    ],
)
async def test_what_is_raised_becomes_a_problem(
    asked: AsyncClient, name: str, expected: tuple[int, str, str, str]
) -> None:
    assert assert_problem(await asked.get(f"/raise/{name}"), *expected) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/raise/invalid", fault("body", "#/price", "The price is below the cost.")),
        ("/raise/cursor?cursor=x", fault("query", "#/cursor", "The cursor is not one of ours.")),
        ("/raise/name", fault("path", "#/name", "No such name.")),
    ],
)
async def test_an_invalid_field_is_pointed_at_where_it_was_sent(
    asked: AsyncClient, address: str, expected: dict[str, str]
) -> None:
    detail = expected["detail"]
    answer = await asked.get(address)
    assert assert_problem(answer, 422, "validation-failed", "Validation failed", detail) == [expected]


async def test_unavailable_says_when_to_try_again_and_logs_why(
    asked: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await asked.get("/raise/unavailable")
    assert_problem(answer, 503, "service-unavailable", "Service unavailable", "The database is away.")
    assert answer.headers["Retry-After"] == "1"
    assert "connection refused" in caplog.text
    assert "connection refused" not in answer.text


async def test_the_headers_of_an_http_exception_are_kept(asked: AsyncClient) -> None:
    assert (await asked.get("/raise/unauthorized")).headers["WWW-Authenticate"] == "Bearer"


async def test_an_http_exception_that_is_no_error_has_no_body(asked: AsyncClient) -> None:
    unchanged, moved = await asked.get("/raise/unchanged"), await asked.get("/raise/moved")
    assert (unchanged.status_code, unchanged.headers["ETag"], unchanged.content) == (304, '"1"', b"")
    assert (moved.status_code, moved.headers["Location"], moved.content) == (307, "/elsewhere", b"")


async def test_an_unknown_address_is_404(asked: AsyncClient) -> None:
    answer = await asked.get("/nothing")
    assert_problem(answer, 404, "not-found", "Not found", "There is nothing at this address.")


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
async def test_an_unknown_method_is_405_and_allow_lists_the_methods_of_all_routes(
    asked: AsyncClient, method: str
) -> None:
    answer = await asked.request(method, "/things")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "DELETE, POST, PUT"


async def test_validation_names_every_fault_and_its_place(asked: AsyncClient) -> None:
    answer = await asked.get("/things/x?limit=y", headers={"X-Level": "z"})
    sentence = "Input should be a valid integer, unable to parse string as an integer"
    detail = "The request is not valid; `errors` says where."
    assert assert_problem(answer, 422, "validation-failed", "Validation failed", detail) == [
        fault("path", "#/id", sentence),
        fault("query", "#/limit", sentence),
        fault("header", "#/x-level", sentence),
    ]


async def faults(asked: AsyncClient, body: Any, address: str = "/things") -> list[tuple[str, str]]:
    answer = await asked.post(address, json=body)
    assert answer.status_code == 422, answer.text
    assert {entry["location"] for entry in answer.json()["errors"]} == {"body"}
    return [(entry["pointer"], entry["detail"]) for entry in answer.json()["errors"]]


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
async def test_a_pointer_leads_to_what_was_sent(asked: AsyncClient, body: Any, pointers: list[str]) -> None:
    assert [pointer for pointer, _ in await faults(asked, body)] == pointers


async def test_a_body_of_two_parts_is_pointed_into(asked: AsyncClient) -> None:
    body = {"thing": {"name": 1}}
    assert [pointer for pointer, _ in await faults(asked, body, "/two")] == ["#/thing/name", "#/number"]


@pytest.mark.parametrize(
    ("content", "pointer"), [(b'{"\\ud83d": 1}', "#"), (b'{"prices": {"\\ud83d": "x"}}', "#/prices")]
)
async def test_half_a_surrogate_pair_in_a_key_is_survived(asked: AsyncClient, content: bytes, pointer: str) -> None:
    answer = await asked.post("/things", content=content, headers=JSON)
    assert [entry["pointer"] for entry in answer.json()["errors"]] == [pointer]


@example(keys=["\ud83d", "~1", "/"])
@given(keys=st.lists(st.text(st.characters(exclude_categories=()), min_size=1)))
def test_a_pointer_is_a_uri_fragment_that_decodes_to_its_keys(keys: list[str]) -> None:
    pointer = _pointer(keys)
    assert pointer.isascii()
    assert not set(pointer[1:]) & set('#<>"{}|\\^` ')
    decoded = [unquote(token, errors="surrogatepass") for token in pointer.removeprefix("#").split("/")[1:]]
    assert [token.replace("~1", "/").replace("~0", "~") for token in decoded] == keys


async def test_the_client_is_not_quoted(asked: AsyncClient) -> None:
    evil = "<evil>"
    for body in ({"shape": {"kind": evil}}, {"id": evil}, {"color": evil}, {"size": evil}, {"name": evil}):
        answer = await asked.post("/things", json=body)
        assert answer.status_code == 422
        assert "<" not in answer.text
    assert (await faults(asked, {"shape": {"kind": evil}}))[0][1] == (
        "Input should have 'kind' set to one of 'circle', 'square'"
    )


@pytest.mark.parametrize(("name", "detail"), [("!", "Say something"), ("?", "Ask something")])
async def test_a_validators_own_sentence_stands_alone(asked: AsyncClient, name: str, detail: str) -> None:
    assert await faults(asked, {"name": name}) == [("#/name", detail)]


async def test_no_more_than_a_hundred_faults_are_listed(asked: AsyncClient) -> None:
    assert len(await faults(asked, {"parts": [1] * 5000})) == 100


async def test_an_empty_body_is_asked_for(asked: AsyncClient) -> None:
    answer = await asked.post("/things", headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [fault("body", "#", "A body is required")]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b'{"name": }', "The body is not valid JSON: Expecting value (character 9)."),
        (b"\xff\x80", "The body is not valid UTF-8."),
        (b"[" * 100_000, "The body is nested too deeply."),
        (b"9" * 5000, "A number in the body is too long."),
    ],
)
async def test_a_body_that_is_no_json_is_400(asked: AsyncClient, content: bytes, detail: str) -> None:
    answer = await asked.post("/things", content=content, headers=JSON)
    assert assert_problem(answer, 400, "bad-request", "Bad request", detail) == []


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/octet-stream"}])
@pytest.mark.parametrize("address", ["/things", "/two"])
async def test_json_that_does_not_say_so_is_415(asked: AsyncClient, address: str, headers: dict[str, str]) -> None:
    answer = await asked.post(address, content=b'{"name": "x"}', headers=headers)
    detail = "The body must be JSON, sent with `Content-Type: application/json`."
    assert_problem(answer, 415, "unsupported-media-type", "Unsupported media type", detail)
    assert answer.headers["Accept"] == "application/json"


@pytest.mark.parametrize("name", ["unhandled", "group"])
async def test_an_unhandled_error_is_500_tells_nothing_and_is_logged_once(
    asked: AsyncClient, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    answer = await asked.get(f"/raise/{name}", headers={"X-Request-ID": "abc"})
    detail = "Something went wrong on our side; the request id finds it in our log."
    assert_problem(answer, 500, "internal-error", "Internal error", detail)
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert record.getMessage() == f"Unhandled error in GET /raise/{name}"


async def test_an_error_after_the_answer_began_is_left_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokenError):
        await messages(make_app(), http_scope("/late"))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("path", ["/raw", "/things"])
async def test_a_client_that_leaves_is_no_error_and_gets_no_answer(caplog: pytest.LogCaptureFixture, path: str) -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    assert await messages(make_app(), http_scope(path, "POST", content_type="application/json"), gone) == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_leaves_while_it_is_answered_is_no_error() -> None:
    async def gone(message: Message) -> None:
        raise OSError

    await make_app()(http_scope("/late"), never, gone)


async def never() -> Message:
    raise ClientDisconnect


async def test_what_is_not_http_passes() -> None:
    assert await messages(make_app(), {"type": "lifespan"}, startup_then_shutdown()) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def startup_then_shutdown() -> Any:
    kinds = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Message:
        return {"type": next(kinds)}

    return receive
