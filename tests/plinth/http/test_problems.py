from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from pydantic import BaseModel, ConfigDict, Field
from schemathesis.checks import load_all_checks

from plinth.errors import ConflictError, NotFoundError
from plinth.http import document_problems, problem_responses
from tests.plinth.http.apps import build

REFERENCE = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=5, pattern="^[a-z]+$")
    loud: bool = False


def make_app() -> FastAPI:
    app = build()

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

    document_problems(app)
    return app


def answers(schema: dict[str, Any], path: str, method: str) -> dict[str, Any]:
    return schema["paths"][path][method]["responses"]  # type: ignore[no-any-return]


def test_each_route_documents_the_problems_that_it_can_answer() -> None:
    schema = make_app().openapi()
    assert list(answers(schema, "/things", "post")) == ["201", "400", "409", "413", "415", "422", "500", "503"]
    assert list(answers(schema, "/things/{id}", "get")) == ["200", "404", "422", "500", "503"]
    assert list(answers(schema, "/nothing", "get")) == ["200", "500", "503"]
    for status, answer in answers(schema, "/things", "post").items():
        assert status == "201" or answer["content"] == REFERENCE
    assert answers(schema, "/things", "post")["409"]["description"] == "Conflict"


def test_fastapis_own_errors_are_not_in_the_schema() -> None:
    assert set(make_app().openapi()["components"]["schemas"]) == {"Thing", "Problem", "Fault"}


def test_a_route_added_later_is_documented_too() -> None:
    app = make_app()
    assert app.openapi() == app.openapi()

    @app.get("/later")
    async def later(limit: int) -> None: ...

    assert answers(app.openapi(), "/later", "get")["422"]["content"] == REFERENCE


def test_a_route_may_document_an_answer_of_its_own() -> None:
    app = build()

    @app.post("/things", responses={413: {"description": "Mine"}, 500: {"description": "Mine too"}})
    async def create_thing(thing: Thing) -> None: ...

    document_problems(app)
    documented = answers(app.openapi(), "/things", "post")
    assert (documented["413"]["description"], documented["500"]["description"]) == ("Mine", "Mine too")


load_all_checks()
schema = schemathesis.openapi.from_asgi("/openapi.json", make_app())


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_answered_is_what_is_documented(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate()
