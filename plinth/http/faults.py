"""Describes the faults of a request: which part, where in it, and what is wrong there."""

import re
from collections.abc import Iterable, Iterator, Mapping
from json import JSONDecodeError
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect

from plinth.errors import AppError, InvalidError
from plinth.http.problems import problem
from plinth.http.responses import ORJSONResponse

# A body of a megabyte can contain a hundred thousand faults.
MAX_FAULTS = 100
_LENGTHS = {"too_long": "Text should have at most {max_length} characters"}
_LENGTHS |= {"too_short": "Text should have at least {min_length} characters"}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"}
# How Python writes a bound, and how JSON does.
_PYTHON = re.compile(
    r"Decimal\('(?P<decimal>[^']*)'\)"
    r"|datetime\.date(?:time)?\((?P<numbers>[\d, ]+)(?P<zone>, tzinfo=datetime\.timezone\.utc)?\)"
)
# Pydantic's messages for these quote the input.
_REWORDED = {
    "union_tag_invalid": "Input should have {discriminator} set to one of {expected_tags}",
    "uuid_parsing": "Input should be a valid UUID",
}


def invalid_request(error: RequestValidationError) -> ORJSONResponse:
    """Return 400 for a body that is not JSON, 415 for one with another Content-Type, and 422 for all other faults."""
    cause, faults = error.__cause__, error.errors()
    if isinstance(cause, JSONDecodeError):
        return problem(400, f"The request body is not valid JSON: {cause.msg} (character {cause.pos}).")
    # FastAPI validates the undecoded bytes if the Content-Type is not JSON.
    if isinstance(error.body, bytes) and any(fault["loc"][0] == "body" for fault in faults):
        detail = "The request body must be JSON with `Content-Type: application/json`."
        return problem(415, detail, headers={"Accept": "application/json"})
    described = [describe(fault, error.body) for fault in faults[:MAX_FAULTS]]
    return problem(422, "The request is not valid. See `errors`.", errors=described)


async def fault_of(request: Request, error: AppError) -> dict[str, str]:
    """Return the fault that a service found in one field, with its place in the request."""
    if not isinstance(error, InvalidError) or error.place:
        return {"location": "body", "pointer": pointer(error.place), "detail": str(error)}
    location = _location(request, error.field)
    tokens = await _place(request, error) if location == "body" else [error.field]
    return {"location": location, "pointer": pointer(tokens), "detail": str(error)}


def pointer(tokens: Iterable[int | str]) -> str:
    """Return a JSON Pointer as a URI fragment (RFC 6901 §6). Keys may contain unpaired surrogates."""
    escaped = (str(token).replace("~", "~0").replace("/", "~1") for token in tokens)
    return "#" + "".join("/" + quote(token, "!$&'()*+,;=:@?", errors="surrogatepass") for token in escaped)


def _places(document: Any, name: str) -> Iterator[tuple[list[int | str], Any]]:
    """Yield where a JSON document has members of this name, also in camel case, and their values. Outermost first."""
    level: list[tuple[list[int | str], Any]] = [([], document)]
    while level:
        inner: list[tuple[list[int | str], Any]] = []
        for tokens, value in level:
            if isinstance(value, dict):
                inner += [([*tokens, key], each) for key, each in value.items()]
            elif isinstance(value, list):
                inner += [([*tokens, index], each) for index, each in enumerate(value)]
        yield from (each for each in inner if _snake_case(each[0][-1]) == name)
        level = inner


def _snake_case(key: int | str) -> str:
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", key).lower() if isinstance(key, str) else ""


def _location(request: Request, field: str) -> str:
    if field in request.path_params:
        return "path"
    return "query" if field in request.query_params else "body"


async def _place(request: Request, error: InvalidError) -> list[int | str]:
    """Find the field in the body, which the endpoint has read. The first of several, unless the value decides."""
    try:
        found = [*_places(await request.json(), error.field)]
    except Exception:  # no JSON, or read as a stream
        found = []
    return next(
        (tokens for tokens, value in found if str(value) == error.value), found[0][0] if found else [error.field]
    )


def describe(fault: Mapping[str, Any], body: Any) -> dict[str, str]:
    """Return the fields of `Fault` for an error of Pydantic's. `body` is the document that a location is in."""
    location, *tokens = fault["loc"]
    missing = fault["type"] == "missing"
    if location == "body":
        tokens = list(_in_document(tokens, body, missing))
    if missing and location == "body" and not tokens:
        detail = "A request body is required"
    elif fault["type"] in _REWORDED:
        detail = _REWORDED[fault["type"]].format_map(fault["ctx"])
    elif fault["type"] in _LENGTHS and isinstance(fault["input"], str):
        detail = _LENGTHS[fault["type"]].format_map(fault["ctx"])
    elif fault["type"] in _BOUNDS:
        detail = _PYTHON.sub(_in_json, fault["msg"])
    else:
        detail = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return {"location": location, "pointer": pointer(tokens), "detail": detail}


def _in_json(bound: re.Match[str]) -> str:
    """A bound that Pydantic checks after a function, which it then shows as Python code."""
    if bound["decimal"]:
        return bound["decimal"]
    year, month, day, *time = [int(number) for number in bound["numbers"].split(",")]
    shown = f"{year:04}-{month:02}-{day:02}"
    if time:
        hour, minute, second, fraction, *_ = [*time, 0, 0]
        shown += f"T{hour:02}:{minute:02}:{second:02}" + (f".{fraction:06}" if fraction else "")
    return f"{shown}Z" if bound["zone"] else shown


def _in_document(tokens: list[int | str], body: Any, missing: bool) -> Iterator[int | str]:
    """Skip the tokens of a Pydantic location that are not in the document, such as the members of a union."""
    for position, token in enumerate(tokens):
        if token in body if isinstance(body, Mapping) else isinstance(body, list) and token in range(len(body)):
            body = body[token]
            yield token
        elif missing and position == len(tokens) - 1:
            yield token


def unreadable(cause: BaseException | None) -> str:
    """Return why a body could not be parsed. Raises the cause where the client has left."""
    if isinstance(cause, ClientDisconnect):
        raise cause
    if isinstance(cause, UnicodeDecodeError):
        return "The request body is not valid UTF-8."
    if isinstance(cause, RecursionError):
        return "The request body is nested too deeply."
    if isinstance(cause, ValueError):
        return "A number in the request body is too long."
    return "The request body cannot be read."
