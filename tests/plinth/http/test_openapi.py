"""The OpenAPI document: the problems of every route, exactly those that it can answer, and the same each time."""

import json
import re
from copy import deepcopy
from itertools import combinations
from typing import Annotated, Any

import pytest
import schemathesis
from fastapi import FastAPI, Header
from hypothesis import HealthCheck, settings
from pydantic import BaseModel, ConfigDict, Field, create_model
from schemathesis.checks import load_all_checks

from app.main import create_app
from plinth.errors import ConflictError, NotFoundError
from plinth.http import add_docs, problem_responses
from plinth.http.docs import openapi
from tests.plinth.http.apps import build, client

REFERENCE = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=5, pattern="^[a-z]+$")
    loud: bool = False


def make_app(own_422: bool = True) -> FastAPI:
    app = build(responses=create_app().router.responses if own_422 else None)

    @app.post("/things", status_code=201, responses=problem_responses(409))
    async def create_thing(thing: Thing) -> Thing:
        if thing.loud:
            raise ConflictError("Not so loud.")
        return thing

    @app.get("/things/{id}", responses=problem_responses(404))
    async def get_thing(id: int) -> Thing:
        if id % 2:
            raise NotFoundError("thing", id)
        return Thing(name="a")

    @app.get("/nothing")
    async def get_nothing() -> None: ...

    return app


def add_conditional_route(app: FastAPI) -> None:
    @app.put("/things/{id}", responses=problem_responses(412))
    async def replace_thing(id: int, thing: Thing) -> Thing:
        return thing


def responses(app: FastAPI, path: str, method: str) -> dict[str, Any]:
    documented: dict[str, Any] = openapi(app)["paths"][path][method]["responses"]
    return documented


def test_each_route_documents_the_problems_that_it_can_answer() -> None:
    app = make_app()
    assert list(responses(app, "/things", "post")) == ["201", "400", "409", "413", "415", "422", "429", "500", "503"]
    assert list(responses(app, "/things/{id}", "get")) == ["200", "400", "404", "422", "429", "500", "503"]
    assert list(responses(app, "/nothing", "get")) == ["200", "400", "429", "500", "503"]
    for status, response in responses(app, "/things", "post").items():
        assert status == "201" or response["content"] == REFERENCE
    assert responses(app, "/things", "post")["409"]["description"] == "Conflict"


def test_a_route_that_documents_412_takes_if_match_once() -> None:
    app = make_app()
    add_conditional_route(app)
    operation = openapi(app)["paths"]["/things/{id}"]["put"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["id", "If-Match"]
    assert {"400", "412", "428"} <= operation["responses"].keys()


def test_fastapis_own_errors_are_not_in_the_document() -> None:
    assert set(openapi(make_app())["components"]["schemas"]) == {"Thing", "Problem", "Fault"}


def test_an_app_without_schemas_is_documented() -> None:
    assert set(openapi(build())["components"]["schemas"]) == {"Problem", "Fault"}


async def test_the_document_is_the_same_each_time() -> None:
    app = make_app()
    add_conditional_route(app)
    add_docs(app)
    async with client(app) as session:
        first, second, third = [(await session.get("/openapi.json")).content for _ in range(3)]
    assert first == second == third
    assert first.count(b'"If-Match"') == 1


def test_fastapis_document_is_not_changed() -> None:
    app = make_app()
    add_conditional_route(app)
    before = deepcopy(app.openapi())
    openapi(app)
    assert app.openapi() == before


def test_a_route_added_later_is_documented_too() -> None:
    app = make_app()
    openapi(app)

    @app.get("/later")
    async def later(limit: int) -> None: ...

    assert responses(app, "/later", "get")["422"]["content"] == REFERENCE


def test_a_route_may_document_a_response_of_its_own() -> None:
    app = build()

    @app.post("/things", responses={413: {"description": "Mine"}, 500: {"description": "Mine too"}})
    async def create_thing(thing: Thing) -> None: ...

    documented = responses(app, "/things", "post")
    assert (documented["413"]["description"], documented["500"]["description"]) == ("Mine", "Mine too")


def documented(app: FastAPI) -> FastAPI:
    add_docs(app)
    return app


load_all_checks()
schema = schemathesis.openapi.from_asgi("/openapi.json", documented(make_app()))


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_responses_match_the_document(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate()


@pytest.mark.parametrize("declared", [{}, {422: {"description": "Mine"}}, problem_responses(422)])
def test_a_422_is_documented_where_there_is_something_to_validate(declared: dict[int | str, Any]) -> None:
    def documented(own_422: bool) -> dict[str, Any]:
        app = make_app(own_422)
        app.get("/mine", responses=declared)(endpoint_without_parameters)
        paths = openapi(app)["paths"]
        return {
            f"{method} {path}": operation["responses"].get("422")
            for path, item in paths.items()
            for method, operation in item.items()
        }

    assert documented(True) == documented(False)
    assert documented(True)["get /nothing"] is None
    assert documented(True)["get /mine"] == declared.get(422)


async def endpoint_without_parameters() -> None: ...


def own_model(name: str) -> type[BaseModel]:
    return create_model(name, mine=(int, ...))


@pytest.mark.parametrize("names", [*combinations(["Problem", "Fault", "ValidationError", "HTTPValidationError"], 2)])
@pytest.mark.parametrize("where", ["body", "answer", "declared 422"])
@pytest.mark.parametrize("own_422", [True, False])
def test_models_of_the_service_are_its_own_and_the_document_stays_valid(
    names: tuple[str, str], where: str, own_422: bool
) -> None:
    app = make_app(own_422)
    add_conditional_route(app)
    models = [own_model(name) for name in names]
    for position, model in enumerate(models):
        if where == "body":
            app.post(f"/own/{position}")(endpoint(model))
        elif where == "answer":
            app.get(f"/own/{position}", response_model=model)(endpoint(int))
        else:
            app.get(f"/own/{position}", responses={422: {"model": model}})(endpoint(int))
    app.api_route("/own/head", methods=["HEAD"])(endpoint(int))
    document = openapi(app)
    assert openapi(app) == document
    extended = make_app(own_422)
    extended.openapi = lambda: document  # type: ignore[method-assign]  # as FastAPI's manual extends a document
    assert openapi(extended) == document
    assert_valid(document)
    schemas = document["components"]["schemas"]
    by_fastapi = FastAPI.openapi(app)["components"]["schemas"]
    for name in names:
        assert schemas[name] == by_fastapi[name]
        # Without a 422 of the app's own, FastAPI itself overwrites models that are named as its own.
        assert schemas[name]["properties"].keys() == {"mine"} or ("Validation" in name and not own_422)
    if where == "declared 422":
        content = document["paths"]["/own/1"]["get"]["responses"]["422"]["content"]
        assert content == {"application/json": {"schema": {"$ref": f"#/components/schemas/{names[1]}"}}}
    reference = document["paths"]["/nothing"]["get"]["responses"]["500"]["content"]["application/problem+json"]
    ours = schemas[reference["schema"]["$ref"].rpartition("/")[2]]
    assert {"type", "title", "request_id"} <= ours["properties"].keys()


def test_an_if_match_of_the_service_is_its_own() -> None:
    app = build()

    @app.put("/things/{id}", responses=problem_responses(412))
    async def replace_thing(id: int, if_match: Annotated[str, Header(description="Mine")]) -> None: ...

    document = openapi(app)
    assert_valid(document)
    parameters = document["paths"]["/things/{id}"]["put"]["parameters"]
    assert [each.get("description") for each in parameters if each["name"].lower() == "if-match"] == ["Mine"]


def endpoint(kind: Any) -> Any:
    async def respond(value: kind) -> Any: ...

    return respond


def assert_valid(document: dict[str, Any]) -> None:
    """Valid by the schema of OpenAPI 3.1, without dangling references, and without what that schema cannot express."""
    schemathesis.openapi.from_dict(deepcopy(document)).validate()
    for reference in set(re.findall(r'"\$ref": ?"#/([^"]*)"', json.dumps(document))):
        found: Any = document
        for token in reference.split("/"):
            found = found[token]
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    for operation in operations:
        parameters = [(each["in"], each["name"].lower()) for each in operation.get("parameters", [])]
        assert len(parameters) == len(set(parameters))
