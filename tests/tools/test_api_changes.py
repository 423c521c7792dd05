"""What breaks the clients of an API is found, each kind of it; what only adds is not."""

import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI, Header, Query, Response, Security
from fastapi.security import APIKeyHeader
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from plinth.http import problem_responses
from plinth.http.docs import openapi
from tools.api_changes import breaking
from tools.openapi import RECORD

Schema = dict[str, Any]
Change = Callable[[Schema], object]
KEY = APIKeyHeader(name="X-Key")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str = Field(min_length=1, max_length=9, pattern="^[a-z]+$")
    count: int = Field(1, ge=1, le=100)
    parts: "list[Part]" = []


class Shown(BaseModel):
    id: int
    kind: Literal["a", "b"]
    note: str | None
    weight: float
    made_on: date
    part: Part
    extra: dict[str, int] = {}


def base() -> Schema:
    app = FastAPI(separate_input_output_schemas=False)

    @app.get("/shown", responses=problem_responses(409))
    async def list_shown(
        limit: Annotated[int, Query(le=100)] = 20,
        kind: Literal["a", "b"] | None = None,
        x_trace: Annotated[str | None, Header()] = None,
    ) -> list[Shown]:
        return []

    @app.post("/shown", status_code=201)
    async def add_shown(part: Part) -> Shown:
        raise NotImplementedError

    @app.patch("/shown", responses={200: {"content": {"text/csv": {}}}})
    async def change_shown(key: Annotated[str, Security(KEY)], part: Part | None = None) -> Response:
        raise NotImplementedError

    return json.loads(json.dumps(openapi(app)))  # type: ignore[no-any-return]


BASE = base()


def schema(document: Schema, name: str) -> Schema:
    found: Schema = document["components"]["schemas"][name]
    return found


def operation(document: Schema, method: str) -> Schema:
    found: Schema = document["paths"]["/shown"][method]
    return found


def parameter(document: Schema, name: str) -> Schema:
    return next(each for each in operation(document, "get")["parameters"] if each["name"] == name)


def prop(document: Schema, model: str, name: str) -> Schema:
    found: Schema = schema(document, model)["properties"][name]
    return found


def changed(*changes: Change) -> Schema:
    document = deepcopy(BASE)
    for change in changes:
        change(document)
    return document


def replace(target: Schema, **values: Any) -> None:
    target.clear()
    target.update(values)


NEW = {"name": "new", "in": "query", "schema": {"type": "string"}}
SHOWN = "GET /shown: response 200 #/*"

BREAKING: list[tuple[str, Change, str]] = [
    ("path", lambda d: d["paths"].pop("/shown"), "GET /shown is gone"),
    ("method", lambda d: d["paths"]["/shown"].pop("post"), "POST /shown is gone"),
    ("status", lambda d: operation(d, "get")["responses"].pop("409"), "GET /shown: response 409 is gone"),
    (
        "media type of a response",
        lambda d: operation(d, "patch")["responses"]["200"]["content"].pop("text/csv"),
        "PATCH /shown: response 200: text/csv is gone",
    ),
    (
        "media type of a request",
        lambda d: replace(operation(d, "post")["requestBody"]["content"], **{"text/csv": {}}),
        "POST /shown: request: application/json is gone",
    ),
    ("no body", lambda d: operation(d, "patch").pop("requestBody"), "PATCH /shown: request: application/json is gone"),
    (
        "body required",
        lambda d: operation(d, "patch")["requestBody"].update(required=True),
        "PATCH /shown: a request body is required now",
    ),
    (
        "parameter gone",
        lambda d: operation(d, "get")["parameters"].remove(parameter(d, "limit")),
        "GET /shown: query parameter limit is gone",
    ),
    (
        "parameter in other letters",
        lambda d: parameter(d, "limit").update(name="Limit"),
        "GET /shown: query parameter limit is gone",
    ),
    (
        "parameter required",
        lambda d: parameter(d, "limit").update(required=True),
        "GET /shown: query parameter limit is required now",
    ),
    (
        "new required parameter",
        lambda d: operation(d, "get")["parameters"].append(NEW | {"required": True}),
        "GET /shown: query parameter new is required now",
    ),
    (
        "type of a parameter",
        lambda d: parameter(d, "limit")["schema"].update(type="boolean"),
        "GET /shown: query parameter limit does not accept integer any more",
    ),
    (
        "limit of a parameter",
        lambda d: parameter(d, "limit")["schema"].update(maximum=50),
        "GET /shown: query parameter limit has maximum 50 now",
    ),
    (
        "values of a parameter",
        lambda d: parameter(d, "kind")["schema"]["anyOf"][0].update(enum=["a"]),
        'GET /shown: query parameter kind does not accept "b" any more',
    ),
    (
        "null of a parameter",
        lambda d: parameter(d, "kind")["schema"]["anyOf"].pop(),
        "GET /shown: query parameter kind does not accept null any more",
    ),
    ("request enum", lambda d: prop(d, "Part", "code").update(enum=["a"]), 'does not accept "another value" any more'),
    (
        "maxLength",
        lambda d: prop(d, "Part", "code").update(maxLength=8),
        "POST /shown: request #/code has maxLength 8 now",
    ),
    (
        "minLength",
        lambda d: prop(d, "Part", "code").update(minLength=2),
        "POST /shown: request #/code has minLength 2 now",
    ),
    (
        "pattern",
        lambda d: prop(d, "Part", "code").update(pattern="^a$"),
        "POST /shown: request #/code has another pattern now",
    ),
    (
        "second pattern",
        lambda d: prop(d, "Part", "code").update(allOf=[{"pattern": "^a"}]),
        "POST /shown: request #/code has another pattern now",
    ),
    ("minimum", lambda d: prop(d, "Part", "count").update(minimum=2), "POST /shown: request #/count has minimum 2 now"),
    (
        "new maximum",
        lambda d: prop(d, "Part", "parts").update(maxItems=3),
        "POST /shown: request #/parts has maxItems 3 now",
    ),
    (
        "format",
        lambda d: prop(d, "Part", "code").update(format="uuid"),
        "POST /shown: request #/code has another format now",
    ),
    ("unknown keyword", lambda d: prop(d, "Part", "parts").update(uniqueItems=True), "has another uniqueItems now"),
    (
        "required in a request",
        lambda d: schema(d, "Part")["required"].append("count"),
        "POST /shown: request #/count is required now",
    ),
    (
        "new required property",
        lambda d: schema(d, "Part").update(
            properties=schema(d, "Part")["properties"] | {"new": {"type": "string"}},
            required=["code", "new"],
        ),
        "POST /shown: request #/new is required now",
    ),
    (
        "request property gone",
        lambda d: schema(d, "Part")["properties"].pop("count"),
        "POST /shown: request #/count is gone",
    ),
    (
        "type in a request",
        lambda d: prop(d, "Part", "count").update(type="string"),
        "POST /shown: request #/count does not accept integer any more",
    ),
    (
        "items of a request",
        lambda d: prop(d, "Part", "parts").update(items={"type": "string"}),
        "POST /shown: request #/parts/* does not accept object any more",
    ),
    ("response property gone", lambda d: schema(d, "Shown")["properties"].pop("note"), f"{SHOWN}/note is gone"),
    ("may be missing", lambda d: schema(d, "Shown")["required"].remove("id"), f"{SHOWN}/id may be missing now"),
    ("response type", lambda d: prop(d, "Shown", "id").update(type="string"), f"{SHOWN}/id may be string now"),
    ("wider number", lambda d: prop(d, "Shown", "id").update(type="number"), f"{SHOWN}/id may be number now"),
    (
        "null in a response",
        lambda d: replace(prop(d, "Shown", "id"), anyOf=[{"type": "integer"}, {"type": "null"}]),
        f"{SHOWN}/id may be null now",
    ),
    (
        "null by a list",
        lambda d: prop(d, "Shown", "id").update(type=["integer", "null"]),
        f"{SHOWN}/id may be null now",
    ),
    (
        "response format",
        lambda d: prop(d, "Shown", "made_on").update(format="date-time"),
        f"{SHOWN}/made_on has another format now",
    ),
    ("response enum", lambda d: prop(d, "Shown", "kind").update(enum=["a", "b", "c"]), f'{SHOWN}/kind may be "c" now'),
    ("any value", lambda d: prop(d, "Shown", "kind").pop("enum"), f'{SHOWN}/kind may be "another value" now'),
    ("values of a map", lambda d: prop(d, "Shown", "extra").update(additionalProperties=True), "may be any type now"),
    ("deep in a response", lambda d: schema(d, "Part")["properties"].pop("code"), f"{SHOWN}/part/code is gone"),
    (
        "security",
        lambda d: operation(d, "get").update(security=[{"APIKeyHeader": []}]),
        "GET /shown: a request without credentials is not enough any more",
    ),
    (
        "scopes",
        lambda d: operation(d, "patch").update(security=[{"APIKeyHeader": ["admin"]}]),
        "PATCH /shown: APIKeyHeader is not enough any more",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), [each[1:] for each in BREAKING], ids=[each[0] for each in BREAKING])
def test_what_breaks_clients_is_found(change: Change, sentence: str) -> None:
    found = [*breaking(BASE, changed(change))]
    assert any(sentence in each for each in found), found


ADDING: list[tuple[str, Change]] = [
    ("nothing", lambda d: None),
    ("path", lambda d: d["paths"].update({"/new": {"get": {}}})),
    ("method", lambda d: d["paths"]["/shown"].update(put={})),
    ("status", lambda d: operation(d, "get")["responses"].update({"412": {}})),
    ("media type", lambda d: operation(d, "get")["responses"]["200"]["content"].update({"text/csv": {}})),
    ("parameter", lambda d: operation(d, "get")["parameters"].append(NEW)),
    ("header in other letters", lambda d: parameter(d, "x-trace").update(name="X-Trace")),
    ("looser limits", lambda d: prop(d, "Part", "count").update(minimum=0, maximum=1000)),
    ("no limits", lambda d: [prop(d, "Part", "code").pop(key) for key in ("minLength", "maxLength", "pattern")]),
    ("request number", lambda d: parameter(d, "limit")["schema"].update(type="number")),
    ("request null", lambda d: parameter(d, "limit")["schema"].update(type=["integer", "null"])),
    ("request enum", lambda d: parameter(d, "kind")["schema"]["anyOf"][0].update(enum=["c", "b", "a"])),
    ("request any value", lambda d: parameter(d, "kind")["schema"]["anyOf"][0].pop("enum")),
    ("response integer", lambda d: prop(d, "Shown", "weight").update(type="integer")),
    ("response not null", lambda d: replace(prop(d, "Shown", "note"), type="string")),
    ("response const", lambda d: replace(prop(d, "Shown", "kind"), const="a", type="string")),
    ("always there", lambda d: schema(d, "Shown")["required"].append("extra")),
    ("response property", lambda d: schema(d, "Shown")["properties"].update(new={"type": "null"})),
    ("words", lambda d: prop(d, "Part", "code").update(title="Other", description="Other", examples=["b"])),
    ("other security too", lambda d: operation(d, "patch").update(security=[{"APIKeyHeader": []}, {"Bearer": []}])),
    ("no security", lambda d: operation(d, "patch").pop("security")),
    ("reference in place", lambda d: replace(prop(d, "Shown", "part"), allOf=[{"$ref": "#/components/schemas/Part"}])),
]


@pytest.mark.parametrize("change", [each[1] for each in ADDING], ids=[each[0] for each in ADDING])
def test_what_only_adds_is_not(change: Change) -> None:
    assert [*breaking(BASE, changed(change))] == []


@pytest.mark.parametrize(("days", "found"), [(-1, []), (0, []), (1, ["POST /shown is gone"])])
def test_a_route_may_go_after_its_sunset(days: int, found: list[str]) -> None:
    sunset = f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}"
    old = changed(lambda d: operation(d, "post").update({"deprecated": True, "x-sunset": sunset}))
    assert [*breaking(old, changed(lambda d: d["paths"]["/shown"].pop("post")))] == found


REAL: Schema = json.loads(RECORD.read_text())
NAMES = st.from_regex("new_[a-z]{1,3}", fullmatch=True)
VALUES = st.sampled_from([{"type": "string"}, {"type": ["integer", "null"]}, {"anyOf": [{"type": "null"}, {}]}, {}])
for item in REAL["paths"].values():
    for each in item.values():  # the others show the same problem, which takes most of the time
        each["responses"] = {key: value for key, value in each["responses"].items() if key[0] == "2" or key == "404"}
OPERATIONS = [(path, method) for path, item in REAL["paths"].items() for method in item]
SCHEMAS = [name for name, each in REAL["components"]["schemas"].items() if "properties" in each]


@settings(max_examples=40)
@given(st.data())
def test_optional_additions_never_break(data: st.DataObject) -> None:
    new = deepcopy(REAL)
    for path, method in data.draw(st.lists(st.sampled_from(OPERATIONS), max_size=5)):
        new["paths"][path][method].setdefault("parameters", []).append(
            {
                "name": data.draw(NAMES),
                "in": data.draw(st.sampled_from(["query", "cookie"])),
                "schema": data.draw(VALUES),
            }
        )
        new["paths"][f"{path}/{data.draw(NAMES)}"] = deepcopy(new["paths"][path])
        new["paths"][path].setdefault("trace", {})
    for name in data.draw(st.lists(st.sampled_from(SCHEMAS), max_size=5)):
        new["components"]["schemas"][name]["properties"][data.draw(NAMES)] = data.draw(VALUES)
    assert [*breaking(REAL, new)] == []


def responses(document: Schema) -> list[tuple[str, Schema]]:
    """The name of each schema in a response, with the schema, however deep."""
    found: dict[str, Schema] = {}

    def visit(value: Any) -> None:
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(each)
        if isinstance(value, dict) and (name := str(value.get("$ref", "")).rpartition("/")[2]) and name not in found:
            found[name] = document["components"]["schemas"][name]
            visit(found[name])

    for path, method in OPERATIONS:
        visit(document["paths"][path][method]["responses"])
    return [*found.items()]


REMOVALS = [(name, each) for name, found in responses(REAL) for each in found.get("properties", ())]


@pytest.mark.parametrize(("name", "removed"), REMOVALS)
def test_every_removed_property_of_a_response_is_found(name: str, removed: str) -> None:
    new = deepcopy(REAL)
    new["components"]["schemas"][name]["properties"].pop(removed)
    assert any(each.endswith(f"/{removed} is gone") for each in breaking(REAL, new))


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_removed_operation_is_found(path: str, method: str) -> None:
    new = deepcopy(REAL)
    new["paths"][path].pop(method)
    assert [*breaking(REAL, new)] == [f"{method.upper()} {path} is gone"]
