"""Which changes of an OpenAPI document break clients.

What clients send must still be accepted, and what they receive must still be what they expect. Anything may be added
that neither requires: routes, optional parameters and properties of requests, any properties of responses.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

Schema = dict[str, Any]
ANY = "any type"
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
LIMITS: dict[str, Any] = dict.fromkeys(UPPER, min) | dict.fromkeys(LOWER, max)
COMPARED = {*LIMITS, "type", "enum", "properties", "required", "items", "additionalProperties"}
RESOLVED = {"$ref", "allOf", "anyOf", "oneOf", "type", "const"}
ANNOTATIONS = {"title", "description", "default", "example", "examples", "deprecated", "discriminator", "readOnly"}


def breaking(old: Schema, new: Schema) -> Iterator[str]:
    """A sentence for each change that breaks clients, which begins with its place."""
    for path, item in old.get("paths", {}).items():
        for method, before in item.items():
            place, after = f"{method.upper()} {path}", new.get("paths", {}).get(path, {}).get(method)
            if after:
                yield from _operation(old, new, before, after, place)
            elif not (before.get("deprecated") and before.get("x-sunset", "9999") <= str(datetime.now(UTC).date())):
                yield f"{place} is gone"


def _operation(old: Schema, new: Schema, before: Schema, after: Schema, place: str) -> Iterator[str]:
    requests, responses = Direction(old, new, True), Direction(new, old, False)
    yield from _parameters(requests, before.get("parameters", ()), after.get("parameters", ()), place)
    body, new_body = before.get("requestBody", {}), after.get("requestBody", {})
    if new_body.get("required") and not body.get("required"):
        yield f"{place}: a request body is required now"
    yield from requests.content(body, new_body, f"{place}: request")
    for status, response in before.get("responses", {}).items():
        if status in after.get("responses", {}):
            yield from responses.content(response, after["responses"][status], f"{place}: response {status}")
        else:
            yield f"{place}: response {status} is gone"
    allowed = after.get("security", new.get("security")) or [{}]
    for way in before.get("security", old.get("security")) or [{}]:
        if not any(one.keys() <= way.keys() and all({*one[name]} <= {*way[name]} for name in one) for one in allowed):
            yield f"{place}: {' and '.join(way) or 'a request without credentials'} is not enough any more"


def _parameters(requests: "Direction", old: Any, new: Any, place: str) -> Iterator[str]:
    before, after = (
        {(each["in"], each["name"].lower() if each["in"] == "header" else each["name"]): each for each in one}
        for one in (old, new)
    )
    for key, parameter in (before | after).items():
        here, known = f"{place}: {key[0]} parameter {parameter['name']}", before.get(key, {})
        if key not in after:
            yield f"{here} is gone"
        elif parameter.get("required") and not known.get("required"):
            yield f"{here} is required now"
        if key in before and key in after:
            yield from requests.schemas(known.get("schema", {}), parameter.get("schema", {}), here)


@dataclass(frozen=True)
class Direction:
    """What is sent, requests in the old form or responses in the new one, must be what the other side expects."""

    sender: Schema
    receiver: Schema
    is_request: bool

    def content(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        for media, before in old.get("content", {}).items():
            if media not in new.get("content", {}):
                yield f"{place}: {media} is gone"
                continue
            yield from self.schemas(before.get("schema", {}), new["content"][media].get("schema", {}), place)

    def schemas(self, old: Any, new: Any, place: str) -> Iterator[str]:
        for pointer, fault in self._compare(*((old, new) if self.is_request else (new, old)), "", ()):
            yield f"{place}{pointer and ' #'}{pointer} {fault}"

    def _compare(self, sent: Any, expected: Any, place: str, above: tuple[str, ...]) -> list[tuple[str, str]]:
        """Each alternative of what is sent must fit one of those that are expected."""
        pair = json.dumps([sent, expected])
        if pair in above:
            return []  # a schema inside of itself
        found: list[tuple[str, str]] = []
        for one in _alternatives(sent, self.sender):
            [kind, *_] = one.get("type", [ANY])
            alike = {ANY, kind, kind.replace("integer", "number")}
            ways = [way for way in _alternatives(expected, self.receiver) if way.get("type", [ANY])[0] in alike]
            tried = sorted([[*self._misfits(one, way, place, (*above, pair))] for way in ways], key=len)
            found += tried[0] if tried else [(place, self._fault(kind))]
        return found

    def _fault(self, what: str) -> str:
        return f"does not accept {what} any more" if self.is_request else f"may be {what} now"

    def _misfits(self, sent: Schema, expected: Schema, place: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for allowed in expected.get("enum", ()):
            values = [value for value in sent.get("enum", [["another value"]])[0] if value not in allowed]
            yield from ((place, self._fault(json.dumps(value))) for value in values)
        for key in [key for key in LIMITS if self.is_request and key in expected]:
            if key not in sent or LIMITS[key](sent[key] + expected[key]) != LIMITS[key](sent[key]):
                yield place, f"has {key} {LIMITS[key](expected[key])} now"
        for key in sorted(expected.keys() - COMPARED):
            if (self.is_request or key != "pattern") and any(each not in sent.get(key, ()) for each in expected[key]):
                yield place, f"has another {key} now"
        old, new = map(_properties, (sent, expected) if self.is_request else (expected, sent))
        yield from ((f"{place}/{name}", "is gone") for name in old if name not in new)
        for name in [name for name in old if name in new]:
            pair = (old[name], new[name]) if self.is_request else (new[name], old[name])
            yield from self._compare(*pair, f"{place}/{name}", above)
        for name in sorted({*chain(*expected.get("required", ()))}.difference(*sent.get("required", ()))):
            if self.is_request or name in new:
                yield f"{place}/{name}", "is required now" if self.is_request else "may be missing now"
        for key in ("items", "additionalProperties"):
            for allowed in expected.get(key, ()) if False not in sent.get(key, ()) else ():
                if allowed is not False:
                    yield from self._compare({"allOf": sent.get(key, [])}, allowed, f"{place}/*", above)
                elif self.is_request:
                    yield place, self._fault(f"other {key}")


def _properties(way: Schema) -> Schema:
    names = chain(*way.get("properties", ()))
    return {name: {"allOf": [each[name] for each in way["properties"] if name in each]} for name in names}


def _alternatives(schema: Any, whole: Schema) -> list[Schema]:
    """The schemas of which one must hold, each as lists of what must all hold, by keyword."""
    schema = {} if schema is True else {"not": {}} if schema is False else schema
    own = {key: [value] for key, value in schema.items() if key not in RESOLVED | ANNOTATIONS and key[:2] != "x-"}
    choices: list[list[Schema]] = [[own], *(_alternatives(each, whole) for each in schema.get("allOf", ()))]
    choices += [[{"enum": [[schema["const"]]]}]] if "const" in schema else []
    types = schema.get("type", ())
    choices += [[{"type": [each]} for each in ([types] if isinstance(types, str) else types)]] if types else []
    if "$ref" in schema:
        choices.append(_alternatives(whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]], whole))
    for key in {"anyOf", "oneOf"} & schema.keys():
        choices.append([way for each in schema[key] for way in _alternatives(each, whole)])
    ways: list[Schema] = [{}]
    for options in choices:
        ways = [{key: one.get(key, []) + each.get(key, []) for key in one | each} for one in ways for each in options]
    return ways
