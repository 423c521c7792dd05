"""Problem details: every error response is `application/problem+json` (RFC 9457) with a sentence and the request id."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

import orjson
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, Field

from plinth.http.responses import ORJSONResponse
from plinth.telemetry.context import request_id

MEDIA_TYPE = "application/problem+json"

# Python's phrases for these depend on its version, or name the wrong thing; clients compare `type` and `title`.
_OWN_TITLES = {
    413: "Content too large",
    414: "URI too long",
    416: "Range not satisfiable",
    422: "Validation failed",
    500: "Internal error",
    503: "Service unavailable",
}
_TITLES = {status.value: _OWN_TITLES.get(status, status.phrase.capitalize()) for status in HTTPStatus if status >= 400}
_STANDARD = ("detail", "title", "type", "instance")
_RESERVED = frozenset({*_STANDARD, "status", "request_id", "errors"})


class Fault(BaseModel):
    """One fault of the request."""

    location: Literal["body", "query", "path", "header", "cookie"] = Field(description="The part of the request.")
    pointer: str = Field(
        description="The place in that part: a JSON Pointer as a URI fragment (RFC 6901).", examples=["#/price"]
    )
    detail: str = Field(description="What is wrong there.", examples=["Field required"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Identifies the kind of problem.", examples=["urn:problem-type:not-found"])
    title: str = Field(description="The kind of problem in words.", examples=["Not found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What went wrong with this request.", examples=["Invoice 42 does not exist."])
    request_id: str = Field(description="Identifies this request in our log. Quote it when you report the problem.")
    errors: list[Fault] | None = Field(default=None, description="Every fault of an invalid request.")


def problem(
    status: int,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
    kind: str | None = None,
    members: Mapping[str, Any] | None = None,
) -> ORJSONResponse:
    """Return an error response. `detail` is for the client: one sentence without secrets and without its own input.

    The type and the title follow from `kind`, or else from `status`, which is 400 or more. `errors` are the fields of
    `Fault`. `members` are added (RFC 9457 §3.2).
    """
    content: dict[str, Any] = {
        "type": f"urn:problem-type:{re.sub('[^a-z]+', '-', (kind or title(status)).lower())}",
        "title": kind or title(status),
        "status": status,
        "detail": _encodable(detail),
        "request_id": request_id.get(),
    }
    if errors is not None:
        content["errors"] = [{**fault, "detail": _encodable(fault["detail"])} for fault in errors]
    return ORJSONResponse({**content, **(members or {})}, status, headers, MEDIA_TYPE)


def extended(status: int, detail: Any, sentence: str, headers: Mapping[str, str]) -> ORJSONResponse:
    """Return a problem that keeps the detail of an HTTPException, which may be any JSON and is not only a sentence.

    A dict becomes members, of which strings named `detail`, `title`, `type` and `instance` mean what RFC 9457 says.
    Anything else, and a dict with another member of a name that problems have, is the member `details`.
    """
    members = {key: detail[key] for key in detail if isinstance(key, str)} if isinstance(detail, Mapping) else {}
    strings = [name for name in _STANDARD if isinstance(members.get(name), str)]
    if len(members) != len(detail if isinstance(detail, Mapping) else [detail]) or (
        (_RESERVED & members.keys()).difference(strings)
    ):
        members = {"details": detail}
    return problem(status, sentence, headers=headers, members={name: _json(members[name]) for name in members})


def content_too_large(limit_bytes: int) -> ORJSONResponse:
    """Return the 413 for a request body that is larger than allowed.

    It closes the connection, on which the rest of the body may still arrive.
    """
    detail = f"The request body is too large. At most {limit_bytes} bytes are allowed here."
    return problem(413, detail, headers={"Connection": "close"})


def title(status: int) -> str:
    return _TITLES.get(status, "Error")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems of a route: `responses=problem_responses(404, 409)`.

    `openapi` adds those that follow from what the route accepts, and those of every route.
    """
    return {status: documented_problem(status) for status in statuses}


def documented_problem(status: int, schema: str = "Problem") -> dict[str, Any]:
    """Return the OpenAPI response object of a problem with this status."""
    return {
        "description": title(status),
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _json(value: Any) -> orjson.Fragment:
    """Encode what FastAPI would encode in a response."""
    encoded = jsonable_encoder(value)
    try:
        return orjson.Fragment(orjson.dumps(encoded, option=orjson.OPT_NON_STR_KEYS))
    except TypeError:  # an integer of more than 64 bits, or an unpaired surrogate
        return orjson.Fragment(json.dumps(encoded))


def _encodable(text: str) -> str:
    """Replace unpaired surrogates, which a message may quote and orjson refuses to encode."""
    return text.encode("utf-8", "replace").decode()
