"""FastRoute answers as APIRoute does: a generated matrix of endpoints is served by both, and every answer is compared.

Compared are the status, headers and bytes, the exception that leaves the app, how often the body was read, and the
order in which dependencies, endpoints and background tasks ran.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from functools import partial
from itertools import product
from typing import Annotated, Any, Literal
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
    Path,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2PasswordBearer,
    SecurityScopes,
)
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message

from plinth.http import FastRoute, ORJSONResponse

events: list[str] = []
tenant: ContextVar[str] = ContextVar("tenant", default="none")


@dataclass
class Case:
    """An endpoint and what is sent to it. The first request is a right one."""

    name: str
    call: Callable[..., Any]
    requests: list[dict[str, Any]]
    path: str = ""
    method: str = "GET"
    fast: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def endpoint(*parameters: tuple[Any, ...], returns: Any = dict[str, str]) -> Callable[..., Any]:
    """An endpoint of this signature, which returns its arguments."""

    async def call(**arguments: Any) -> Any:
        events.append("endpoint")
        return {name: f"{type(value).__name__} {value!r}" for name, value in sorted(arguments.items())}

    kind = inspect.Parameter.KEYWORD_ONLY
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name, kind, annotation=annotation, default=default[0] if default else inspect.Parameter.empty
            )
            for name, annotation, *default in parameters
        ],
        return_annotation=returns,
    )
    return call


class Color(Enum):
    RED = "red"
    BLUE = "blue"


def of_tenant(value: str) -> str:
    """A validator that sees what a dependency did before."""
    return f"{value}@{tenant.get()}"


TYPES: dict[str, tuple[Any, str, str]] = {  # with a right and a wrong value
    "int": (int, "7", "x"),
    "float": (float, "1e3", "many"),
    "bool": (bool, "yes", "maybe"),
    "str": (str, "a%20b%2B+c", ""),
    "date": (date, "2026-11-28", "today"),
    "uuid": (UUID, "00000000-0000-0000-0000-000000000001", "1"),
    "enum": (Color, "red", "green"),
    "literal": (Literal["a", "b"], "a", "c"),
    "constrained": (Annotated[int, Field(ge=1, le=9)], "9", "10"),
    "before": (Annotated[int, BeforeValidator(len)], "abc", ""),
    "validated": (Annotated[str, AfterValidator(of_tenant)], "a", ""),
    "union": (int | date, "7", "x"),
}
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "required": (),
    "default": (None,),
    "factory": (lambda info: info(default_factory=lambda: None),),
    "checked": (lambda info: info("9", validate_default=True),),  # "9" becomes a number, or is wrong
}


def sent(kind: str, name: str, *values: str) -> dict[str, Any]:
    """A request with these values of a parameter."""
    if kind == "query":
        return {"query": "&".join(f"{name}={value}" for value in values)}
    if kind == "header":
        return {"headers": [(name.replace("_", "-"), value) for value in values]}
    if kind == "cookie":
        return {"headers": [("cookie", f"{name}={value}") for value in values]}
    return {"path": f"/{values[0]}"} if values else {"path": "/"}


def parameter_cases() -> Iterator[Case]:
    kinds: dict[str, Any] = {"path": Path, "query": Query, "header": Header, "cookie": Cookie}
    for (kind, info), (type_name, (type_, right, wrong)) in product(kinds.items(), TYPES.items()):
        requests = [sent(kind, "p_q", *values) for values in ((right,), (wrong,), (), (right, wrong))]
        requests += [{**requests[0], "query": "unknown=1&p-q=2&P_Q=3&&=;x"}, sent(kind, "p_q", "%FF"), {"query": "p_q"}]
        path = "/{p_q}" if kind == "path" else ""
        for default_name, default in DEFAULTS.items():
            if default and (kind == "path" or type_name in {"float", "uuid", "literal", "before"}):
                continue
            kind_of_value: Any = type_ | None if default else type_
            parameter: tuple[Any, ...] = ("p_q", Annotated[kind_of_value, info()], *default)
            if default and callable(default[0]):
                parameter = ("p_q", type_ | None, default[0](info))
            yield Case(f"{kind}-{type_name}-{default_name}", endpoint(parameter), requests, path)
    many = [sent("query", "p", *values) for values in (("1", "2"), ("1",), (), ("x", "1"))]
    lists: tuple[tuple[str, Any, Any], ...] = (
        ("list", Query, list[int]),
        ("set", Query, set[int]),
        ("optional-list", Query, list[int] | None),
        ("tuple", Query, tuple[int, int]),
        ("shown", Query, Annotated[list[str], BeforeValidator(lambda given: [repr(given)])]),
        ("header-list", Header, list[str]),
    )
    for name, info, annotation in lists:
        requests = many + [sent("header", "p", *values) for values in (("1", "2"), ("1",))]
        if name == "header-list":
            requests.reverse()
        yield Case(name, endpoint(("p", Annotated[annotation, info()])), requests)
        yield Case(f"{name}-default", endpoint(("p", Annotated[annotation | None, info()], None)), requests)
    for name, info in (
        ("alias", Query(alias="q-p")),
        ("validation-alias", Query(validation_alias="v")),
        ("choices", Query(validation_alias=AliasChoices("q", "p"))),
        ("underscores", Header(convert_underscores=False)),
        ("deprecated", Query(deprecated=True, include_in_schema=False)),
    ):
        requests = [sent(kind, alias, "1") for kind in ("query", "header") for alias in ("p", "q-p", "v", "q")]
        yield Case(f"named-{name}", endpoint(("p", Annotated[int, info], 5)), requests)


class Plain(BaseModel):
    limit: int = Field(20, ge=1, le=100)
    name: str | None = Field(None, alias="called")


class Strict(Plain):
    model_config = ConfigDict(extra="forbid")


class Open(Plain):
    model_config = ConfigDict(extra="allow")


class ByName(Plain):
    model_config = ConfigDict(populate_by_name=True)


class Listed(Plain):
    tags: list[str] = []


class Choosing(BaseModel):
    word: str = Field("", validation_alias=AliasChoices("w", "word"))


class Ordered(BaseModel):
    """Shows in which order it was given its values."""

    model_config = ConfigDict(extra="allow")

    second: str = ""
    first: str = ""
    given: str = ""

    @model_validator(mode="before")
    @classmethod
    def see(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "given": repr(values)}


def model_cases() -> Iterator[Case]:
    queries = ["", "limit=5", "called=a", "name=a", "limit=0", "limit=5&limit=6", "limit=", "x=1", "x=1&x=2"]
    queries += ["tags=a&tags=b", "tags=a", "w=1&word=2", "first=1&other=3&second=2", "first=1&x=2&first=3", "x_y=1"]
    cookies = [{"headers": [("cookie", query.replace("&", "; "))]} for query in queries if query]
    for model in (Plain, Strict, Open, ByName, Listed, Choosing, Ordered):
        requests = [{"query": query} for query in queries]
        headers = [{"headers": [pair.split("=") for pair in query.split("&")]} for query in queries if query]
        yield Case(f"query-{model.__name__}", endpoint(("q", Annotated[model, Query()])), requests)
        yield Case(
            f"query-{model.__name__}-optional", endpoint(("q", Annotated[model | None, Query()], None)), requests
        )
        yield Case(f"header-{model.__name__}", endpoint(("q", Annotated[model, Header()])), headers)
        yield Case(f"cookie-{model.__name__}", endpoint(("q", Annotated[model, Cookie()])), cookies)
    both = endpoint(("q", Annotated[Plain, Query()]), ("p", str, ""))
    yield Case("query-model-and-parameter", both, [{"query": query} for query in (*queries, "limit=2&p=1")])


class Thing(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = Field(min_length=1)
    size: float | None = None


class Counted(BaseModel):
    count: int
    more: Any = None


async def body_dependency(thing: Thing) -> str:
    events.append("body dependency")
    return thing.name


async def reading_dependency(request: Request) -> bytes:
    return await request.body()


def body_cases() -> Iterator[Case]:
    contents: list[bytes | str] = [
        '{"name": "a", "size": 1}',
        '{"count": 3, "name": "a"}',
        '{"name": ""}',
        "",
        " ",
        "{",
    ]
    contents += ["null", "[]", '"a"', "7", b'\xef\xbb\xbf{"name": "a"}', b'{"name": "\xff"}', '{"name": "\\ud800"}']
    contents += ['{"name": "a", "size": NaN}', '{"name": "a", "size": 1e999}', '{"name": "a", "name": "b"}']
    contents += [f'{{"count": {number}}}' for number in (2**63, 2**64, -(2**70), "1.0", "-Infinity", "1" * 5000)]
    contents += ['{"count": 1, "more": [1e400, 123456789012345678901234567890]}', "[" * 5000]
    contents += [
        '{"thing": {"name": "a"}, "other": 1}',
        '{"thing": {"name": "a"}}',
        '{"name": "a"} and more',
        '[{"name": "a"}]',
    ]
    types = ("application/json; charset=utf-8", "application/vnd.thing+json", "APPLICATION/JSON", "text/plain", "")
    rights = {
        "counted": '{"count": 3}',
        "limited": '{"name": "a"}',
        "list": contents[-1],
        "scalar": "7",
        "default": '{"a": 2}',
        "bytes": '"a"',
    }
    rights |= {"embedded": '{"thing": {"name": "a"}}', "two": '{"thing": {"name": "a"}, "other": 1}'}
    for name, parameters in (
        ("model", [("thing", Thing)]),
        ("limited", [("thing", Thing)]),
        ("counted", [("thing", Counted)]),
        ("optional", [("thing", Thing | None, None)]),
        ("embedded", [("thing", Annotated[Thing, Body(embed=True)])]),
        ("two", [("thing", Thing), ("other", Annotated[int, Body()], 5)]),
        ("any", [("thing", Annotated[Any, Body()])]),
        ("list", [("thing", list[Thing])]),
        ("scalar", [("thing", Annotated[int, Body()])]),
        ("default", [("thing", Annotated[dict[str, int], Body()], {"a": 1})]),
        ("bytes", [("thing", Annotated[bytes, Body()])]),
        ("in-dependency", [("word", Annotated[str, Depends(body_dependency)])]),
        ("twice", [("word", Annotated[str, Depends(body_dependency)]), ("thing", Thing)]),
        ("read-before", [("raw", Annotated[bytes, Depends(reading_dependency)]), ("thing", Thing)]),
        ("never-parsed", [("raw", Annotated[bytes, Depends(reading_dependency)])]),
    ):
        json = [("content-type", "application/json")]
        requests: list[dict[str, Any]] = [
            {"body": each, "headers": json} for each in (rights.get(name, contents[0]), *contents)
        ]
        requests += [{"body": contents[0], "headers": [("content-type", type_)] if type_ else []} for type_ in types]
        call = endpoint(*parameters, ("limit", int, 1))
        requests += [{**requests[0], "query": "limit=x"}, {**requests[0], "broken": True}]
        options = {"max_body_size": 20} if name == "limited" else {}
        yield Case(f"body-{name}", call, requests, method="POST", options=options)


def failing(result: Any, outcome: str) -> Any:
    events.append(f"endpoint {result}")
    if outcome == "http":
        raise HTTPException(404, "not here", {"X-Why": "1"})
    if outcome == "handled":
        raise LookupError("a bug")
    if outcome == "crash":
        raise RuntimeError("a worse bug")
    return {"value": "not a number"} if outcome == "bad" else {"value": 1}


class Value(BaseModel):
    value: int


async def plain(q: int = 1) -> str:
    events.append("plain")
    return f"plain {q}"


def threaded(q: int = 1) -> str:
    events.append("threaded")
    return f"threaded {q}"


class Class:
    def __init__(self, q: int = 1) -> None:
        events.append("class")
        self.q = q

    def __repr__(self) -> str:
        return f"Class {self.q}"


class Callable_:  # noqa: N801 - beside typing's
    async def __call__(self, request: HTTPConnection, q: int = 1) -> str:
        events.append("callable")
        return f"callable {q} {request.headers.get('x-word')}"


async def prefixed(prefix: str, q: int = 1) -> str:
    return f"{prefix} {q}"


async def opened(q: int = 1) -> AsyncIterator[str]:
    events.append("open")
    tenant.set("opened")
    try:
        yield f"opened {q}"
    except Exception as error:
        events.append(f"failed {type(error).__name__}")
        raise
    finally:
        events.append("close")


def opened_in_thread(q: int = 1) -> Iterator[str]:
    events.append("open in thread")
    try:
        yield f"opened in thread {q}"
    finally:
        events.append("close in thread")


async def swallowing() -> AsyncIterator[None]:
    try:
        yield
    except Exception as error:
        events.append(f"swallowed {type(error).__name__}")


async def translating() -> AsyncIterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise HTTPException(409, "translated") from error
    finally:
        events.append("translated")


async def closing_badly() -> AsyncIterator[None]:
    yield
    events.append("closing badly")
    raise LookupError("cannot close")


async def refusing(x_word: Annotated[str, Header()] = "") -> None:
    events.append("refusing")
    if not x_word:
        raise HTTPException(403, "no word")


async def changing(response: Response, tasks: BackgroundTasks) -> None:
    response.headers["X-From"] = "dependency"
    response.headers.append("X-From", "again")
    response.set_cookie("a", "b")
    tasks.add_task(events.append, "task of dependency")


async def nested(
    inner: Annotated[str, Depends(opened, scope="function")],
    plain: Annotated[str, Depends(plain)],
    changed: Annotated[None, Depends(changing)],
) -> str:
    events.append("nested")
    return f"nested {inner} {plain}"


async def scoped(scopes: SecurityScopes) -> str:
    return f"scopes {scopes.scope_str}"


STYLES: dict[str, tuple[Any, bool]] = {
    "async": (Depends(plain), True),
    "thread": (Depends(threaded), True),
    "class": (Depends(Class), True),
    "callable": (Depends(Callable_()), True),
    "partial": (Depends(partial(prefixed, "partial")), True),
    "lambda": (Depends(lambda: "lambda"), True),
    "yield-function": (Depends(opened, scope="function"), True),
    "yield-request": (Depends(opened), True),
    "thread-yield-function": (Depends(opened_in_thread, scope="function"), True),
    "thread-yield-request": (Depends(opened_in_thread), True),
    "swallowing": (Depends(swallowing), True),
    "swallowing-function": (Depends(swallowing, scope="function"), True),
    "translating": (Depends(translating, scope="function"), True),
    "closing-badly": (Depends(closing_badly), True),
    "closing-badly-function": (Depends(closing_badly, scope="function"), True),
    "refusing": (Depends(refusing), True),
    "nested": (Depends(nested), True),
    "bearer": (Depends(HTTPBearer()), True),
    "bearer-optional": (Depends(HTTPBearer(auto_error=False)), True),
    "basic": (Depends(HTTPBasic(realm="here")), True),
    "key-header": (Depends(APIKeyHeader(name="x-word")), True),
    "key-query": (Depends(APIKeyQuery(name="q")), True),
    "key-cookie": (Depends(APIKeyCookie(name="key")), True),
    "oauth2": (Security(OAuth2PasswordBearer("token"), scopes=["read"]), True),
    "scopes": (Security(scoped, scopes=["read", "write"]), False),
    "not-cached": (Depends(plain, use_cache=False), False),
    "limited": (Depends(plain, max_concurrency=1), False),
}
AUTHORIZED = [("authorization", "Bearer abc"), ("x-word", "w"), ("cookie", "key=k")]
OUTCOMES = [
    {"query": query, "headers": AUTHORIZED}
    for query in (
        "q=2",
        *(f"q=2&outcome={each}" for each in ("http", "handled", "crash", "bad")),
        "q=2&n=x",
        "q=x&n=x",
        "q=x",
    )
]
OUTCOMES += [{}, {"query": "n=x"}, {"query": "q=2", "headers": [("authorization", "Basic YTpi")]}]


def dependency_cases() -> Iterator[Case]:
    for name, (depends, fast) in STYLES.items():

        async def bare(first: Any = depends, second: Any = depends, n: int = 1, outcome: str = "") -> Value:
            return failing(f"{first!r} {second is first} {n} {tenant.get()}", outcome)  # type: ignore[no-any-return]

        async def changed(  # noqa: PLR0917
            response: Response,
            tasks: BackgroundTasks,
            one: Annotated[str, Depends(nested)],
            two: Any = depends,
            word: Annotated[str, AfterValidator(of_tenant)] = "",
            outcome: str = "",
        ) -> Value:
            response.headers["X-Own"] = "1"
            response.status_code = 202
            tasks.add_task(events.append, "task")
            return failing(f"{one} {two!r} {word} {tenant.get()}", outcome)  # type: ignore[no-any-return]

        async def responding(response: Response, tasks: BackgroundTasks, one: Any = depends, outcome: str = "") -> Any:
            response.headers["X-Lost"] = "1"
            tasks.add_task(events.append, "task")
            return JSONResponse(failing(f"{one!r}", outcome), 203)

        requests = [*OUTCOMES, {"query": "q=2&word=a", "headers": AUTHORIZED}]
        if name == "basic":
            requests.insert(0, OUTCOMES[-1])
        yield Case(f"depends-{name}", bare, requests, fast=fast)
        yield Case(f"depends-{name}-changed", changed, requests[:8] + requests[-1:], fast=fast)
        yield Case(f"depends-{name}-responding", responding, requests[:5], fast=fast)
        yield Case(
            f"router-depends-{name}",
            endpoint(("n", int, 1)),
            [*requests[:1], *requests[-4:-1]],
            fast=fast or name == "not-cached",  # FastAPI drops use_cache here
            options={"dependencies": [depends]},
        )

    async def mixed(
        a: Annotated[str, Depends(opened)],
        b: Annotated[str, Depends(opened, scope="function")],
        n: int,
        outcome: str = "",
    ) -> Value:
        return failing(f"{a} {b} {n}", outcome)  # type: ignore[no-any-return]

    yield Case(
        "both-scopes", mixed, [{"query": f"n={query}"} for query in ("1", "1&outcome=http", "1&outcome=bad", "x")]
    )


class Item(BaseModel):
    id: int = 1
    name: str | None = None
    note: str = Field("n", alias="aNote")
    unset: int = 5


def response_cases() -> Iterator[Case]:
    def returning(result: Any, annotation: Any = None, status: int | None = None) -> Callable[..., Any]:
        async def call(response: Response) -> Any:
            response.headers["X-Own"] = "1"
            if status is not None:
                response.status_code = status
            return result() if callable(result) else result

        call.__annotations__["return"] = annotation
        return call

    item = {"id": 3, "aNote": "a", "name": None}
    options: dict[str, dict[str, Any]] = {
        "exclude-unset": {"response_model_exclude_unset": True},
        "exclude-defaults": {"response_model_exclude_defaults": True},
        "exclude-none": {"response_model_exclude_none": True},
        "include": {"response_model_include": {"id"}},
        "exclude": {"response_model_exclude": {"name"}},
        "by-name": {"response_model_by_alias": False},
        "model": {"response_model": Value},
        "no-model": {"response_model": None},
        "responses": {"responses": {404: {"model": Value}}},
        "201": {"status_code": 201},
        "plain-text": {"response_class": PlainTextResponse, "response_model": None},
        "json-class": {"response_class": JSONResponse},
        "orjson-class": {"response_class": ORJSONResponse},
        "limited-body": {"max_body_size": 10},
    }
    for (name, option), status in product(options.items(), (None, 203, 204)):
        call = returning("text" if name == "plain-text" else item, Item, status)
        yield Case(f"{name}-{status}", call, [{}], options=option)
    for code, at_run_time in product((None, 204, 205, 304), (None, 200, 204, 304)):
        yield Case(
            f"none-{code}-{at_run_time}", returning(None, None, at_run_time), [{}], options={"status_code": code}
        )
    results: dict[str, Any] = {
        "model": (lambda: Item(id=2, aNote="b"), Item),
        "list": (lambda: [Item(), {"id": 1}], list[Item]),
        "union": (lambda: {"value": 2}, Value | Item),
        "wrong": (lambda: {"value": "x"}, Value),
        "untyped": (lambda: {"a": date(2026, 1, 2), "b": {1}}, None),
        "unserializable": (object, None),
        "nan": (lambda: float("nan"), float),
        "response": (lambda: Response("as it is", 203, {"X-Answer": "2"}), Item),
        "html": (lambda: HTMLResponse("<p>"), HTMLResponse),
        "redirect": (lambda: RedirectResponse("/x"), None),
        "stream": (lambda: StreamingResponse(iter([b"a", b"b"])), None),
    }
    for name, (result, annotation) in results.items():
        yield Case(f"returns-{name}", returning(result, annotation), [{}])
        yield Case(f"returns-{name}-202", returning(result, annotation, 202), [{}], options={"status_code": 201})

    def in_thread(word: str = "a") -> Value:
        events.append("in thread")
        return failing(word, word)  # type: ignore[no-any-return]

    async def lines() -> AsyncIterator[Value]:
        yield Value(value=1)
        yield Value(value=2)

    yield Case("in-thread", in_thread, [{}, {"query": "word=bad"}, {"query": "word=http"}])
    yield Case("json-lines", lines, [{}], fast=False)


CASES = [*parameter_cases(), *model_cases(), *body_cases(), *dependency_cases(), *response_cases()]


def build(case: Case, route_class: type[APIRoute]) -> FastAPI:
    router = APIRouter(prefix="/at", route_class=route_class, dependencies=[Depends(plain)])
    router.api_route(f"/x{case.path}", methods=[case.method], **case.options)(case.call)
    app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.exception_handler(LookupError)
    async def look_up(request: Request, error: LookupError) -> Response:
        return Response(f"{error} {await request.body()!r}", 418)

    app.include_router(router, dependencies=[Depends(changing)])
    return app


async def exchange(  # noqa: PLR0917
    app: ASGIApp,
    case: Case,
    path: str = "",
    query: str = "",
    headers: Any = (),
    body: bytes | str = b"",
    broken: bool = False,
) -> dict[str, Any]:
    messages: list[Message] = []
    body = body if isinstance(body, bytes) else body.encode()
    incoming = [{"type": "http.request", "body": part, "more_body": part is not body} for part in (body[:2], body)]
    incoming[1]["body"] = body[2:]
    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.disconnect"} if broken or reads > 2 else incoming[reads - 1]

    async def send(message: Message) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "http_version": "1.1",
        "method": case.method,
        "scheme": "http",
        "path": f"/at/x{path}",
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }
    events.clear()
    tenant.set("none")
    failure = None
    try:
        await app(scope, receive, send)
    except Exception as error:
        failure = f"{type(error).__name__} {error} {error.__cause__!r}"
    return {"messages": messages, "failure": failure, "events": events[:], "reads": reads}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_fast_route_answers_as_api_route_does(case: Case, solved_by_fastapi: list[str]) -> None:
    stock, fast = build(case, APIRoute), build(case, FastRoute)
    for number, request in enumerate(case.requests):
        expected = await exchange(stock, case, **request)
        solved_by_fastapi.clear()
        assert await exchange(fast, case, **request) == expected, request
        if number == 0:
            assert expected["failure"] or expected["messages"][0]["status"] != 422
            assert bool(solved_by_fastapi) is not case.fast


OVERRIDDEN = [case for case in CASES if case.name.startswith("depends-") and case.name.endswith("changed")]


@pytest.mark.parametrize("case", OVERRIDDEN, ids=[case.name for case in OVERRIDDEN])
async def test_overrides_are_used_while_they_are_set(case: Case) -> None:
    async def override(n: int = 1) -> AsyncIterator[str]:
        events.append("override")
        yield f"overridden {n}"
        events.append("end of override")

    stock, fast = build(case, APIRoute), build(case, FastRoute)
    overridden: dict[Callable[..., Any], Callable[..., Any]] = {plain: override, nested: override}
    seen = []
    for overrides in ({}, overridden, {}):
        stock.dependency_overrides = fast.dependency_overrides = overrides
        for request in (case.requests[0], case.requests[5]):
            seen.append(await exchange(stock, case, **request))
            assert await exchange(fast, case, **request) == seen[-1], (overrides, request)
    assert "override" in seen[2]["events"]
    assert "override" not in seen[4]["events"]


def test_the_matrix_is_large_and_on_the_fast_path() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 150
    assert sum(len(case.requests) for case in CASES) >= 800
    assert sum(case.fast for case in CASES) / len(CASES) > 0.9
