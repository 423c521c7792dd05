"""Every error looks the same on the wire: `application/problem+json` (RFC 9457), one clear sentence and the request id.

`errors.py` says which error becomes which problem.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from plinth.http.conditional import IF_MATCH
from plinth.http.responses import ORJSONResponse
from plinth.telemetry.context import request_id

MEDIA_TYPE = "application/problem+json"

# Python words these by its version; clients compare `type` and `title` as text.
_OWN_TITLES = {
    413: "Content too large",
    422: "Validation failed",
    500: "Internal error",
    503: "Service unavailable",
}
_TITLES = {status.value: _OWN_TITLES.get(status, status.phrase.capitalize()) for status in HTTPStatus if status >= 400}


class Fault(BaseModel):
    """One thing that is wrong with the request."""

    location: Literal["body", "query", "path", "header", "cookie"] = Field(description="Where it was sent.")
    pointer: str = Field(
        description="Its place there: a JSON pointer in URI fragment form (RFC 6901).", examples=["#/price"]
    )
    detail: str = Field(description="What is wrong with it.", examples=["Field required"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Names the kind of problem; never changes.", examples=["urn:problem-type:not-found"])
    title: str = Field(description="The kind of problem, for people.", examples=["Not found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What happened this time.", examples=["There is no product 42."])
    request_id: str = Field(description="Quote it when you ask us: it is in our log.")
    errors: list[Fault] | None = Field(default=None, description="Everything that is wrong with the request.")


def problem(
    status: int,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ORJSONResponse:
    """Answer with an error. `detail` is read by the client: a sentence, never a secret or what it sent.

    The type and the title follow from the status, from 400 on.
    """
    content: dict[str, Any] = {
        "type": f"urn:problem-type:{re.sub('[^a-z]+', '-', title(status).lower())}",
        "title": title(status),
        "status": status,
        "detail": _whole(detail),
        "request_id": request_id.get(),
    }
    if errors is not None:
        content["errors"] = [{**fault, "detail": _whole(fault["detail"])} for fault in errors]
    return ORJSONResponse(content, status, headers, MEDIA_TYPE)


def _whole(text: str) -> str:
    # A message may quote half a surrogate pair, which orjson refuses to write.
    return text.encode("utf-8", "replace").decode()


def title(status: int) -> str:
    return _TITLES.get(status, "Error")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document that a route can answer these, beyond what every route can: `responses=problem_responses(404, 409)`."""
    return {status: _documented(title(status)) for status in statuses}


def document_problems(app: FastAPI) -> None:
    """Make the app's OpenAPI describe the errors of every route, in place of FastAPI's `HTTPValidationError`.

    That is 422 where there is something to validate, 400, 413 and 415 where there is a body, and 500 and 503 anywhere;
    who answers 412 takes `If-Match`, and may answer 400 and 428 to that.
    A route declares only its own. There is no `default`: it would promise nothing, so no test could find it broken.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        _describe(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _documented(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _describe(schema: dict[str, Any]) -> None:
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            answers: dict[str, Any] = operation["responses"]
            if "422" in answers:
                answers["422"] = _documented(title(422))
            if "requestBody" in operation:
                for status in (400, 413, 415):
                    answers.setdefault(str(status), _documented(title(status)))
            if "412" in answers:
                operation.setdefault("parameters", []).append(IF_MATCH)
                for status in (400, 428):
                    answers.setdefault(str(status), _documented(title(status)))
            for status in (500, 503):
                answers.setdefault(str(status), _documented(title(status)))
            operation["responses"] = dict(sorted(answers.items()))
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    if schemas.pop("HTTPValidationError", None):
        schemas.pop("ValidationError", None)
    _, ours = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schemas.update(ours["$defs"])
