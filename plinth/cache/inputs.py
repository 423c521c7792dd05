"""What a cached route reads from a request: nothing but its path and its declared query parameters.

Its response goes to every client, so a route that asks for anything of the caller is refused at start-up. What a helper
function does with the request cannot be seen there; a load therefore runs on a request that has nothing of the caller.
"""

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from textwrap import dedent
from typing import Any, get_type_hints
from urllib.parse import parse_qsl, quote, urlencode

from fastapi.responses import FileResponse, StreamingResponse
from fastapi.security.base import SecurityBase
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel

from plinth.cache.tags import canonical

_OF_THE_CALLER = {
    "headers": "headers",
    "cookies": "cookies",
    "client": "the client's address",
    "session": "the session",
    "user": "the user",
    "auth": "credentials",
    "body": "the body",
    "json": "the body",
    "form": "the body",
    "stream": "the body",
    "receive": "the body",
}
"""Attributes of a Request."""
_STREAMS = (StreamingResponse, FileResponse, EventSourceResponse)
_UNQUOTED = "!$&'()*+,;=:@/-._~"
"""Beside letters and digits, what a path may contain as it is (RFC 3986)."""


def faults(route: Any) -> Iterator[str]:
    """Why a route cannot be cached, as the end of a sentence that begins with its name."""
    if "GET" not in (route.methods or ()):
        yield "answers no GET. Remove the decorator"
    for dependant in _tree(route.dependant):
        for asked in dict.fromkeys(_asked(dependant)):
            name = getattr(dependant.call, "__name__", type(dependant.call).__name__)
            yield f"asks for {asked} in {name}(), but every client gets the same response. Remove one of the two"
    if _streams(route):
        yield "streams its response, which cannot be cached. Remove the decorator"


class Inputs:
    """Reads the canonical spelling of a request from its path and query string."""

    def __init__(self, route: Any) -> None:
        self._regex = route.path_regex
        self._convertors: Mapping[str, Any] = route.param_convertors  # what an undeclared parameter is read by
        self._path: list[Any] = []
        self._query: list[tuple[Any, dict[str, str]]] = []
        """Each parameter, with its name in a query, or the names of all fields of a model with its attributes."""
        for dependant in _tree(route.dependant):
            self._path += dependant.path_params
            for field in dependant.query_params:
                kind = field.field_info.annotation
                is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
                fields = kind.model_fields if is_model else {}
                attributes = {str(each.validation_alias or each.alias or name): name for name, each in fields.items()}
                self._query.append((field, attributes if is_model else {field.alias: ""}))

    def read(self, path: str, query_string: bytes) -> tuple[dict[str, str], str] | None:
        """The parameters of the path and the query, both as the parsed values are spelled.

        None for another spelling of the path: it would have an entry of its own, and tags that no invalidation uses.
        Also None for an invalid query, and for what is undeclared or repeated in it.
        """
        texts, query = self._path_texts(path), _pairs(query_string)
        if texts is None or query is None:
            return None
        spelled: dict[str, str] = {}
        for field, attributes in self._query:
            given = {name: query[name] for name in attributes if name in query}
            values = _values(field, attributes, given)
            if values is None:
                return None
            texts_of = {name: canonical(value) for name, value in values.items()}
            if texts_of != given and not _reads_the_same(field, attributes, given, texts_of):
                return None
            if any(spelled.get(name, text) != text for name, text in texts_of.items()):
                return None  # two parameters read the same name as different types
            spelled |= texts_of
        if spelled.keys() != query.keys():
            return None
        return texts, urlencode(sorted(spelled.items())) if spelled else ""

    def _path_texts(self, path: str) -> dict[str, str] | None:
        found = self._regex.fullmatch(path)  # `$` in it would match before a line break
        if found is None:
            return None
        texts: dict[str, str] = found.groupdict()
        known = all(canonical(each.convert(texts[name])) == texts[name] for name, each in self._convertors.items())
        for field in self._path:
            value, errors = field.validate(texts.get(field.alias))
            known = known and not errors and canonical(value) == texts.get(field.alias)
        return texts if known else None


def _parsed(field: Any, attributes: Mapping[str, str], given: Mapping[str, str]) -> tuple[Any, Any]:
    """The value of a parameter, or of a model of several, and what is wrong with it."""
    result: tuple[Any, Any] = field.validate(given[field.alias] if attributes == {field.alias: ""} else dict(given))
    return result


def _values(field: Any, attributes: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any] | None:
    """The parsed value of each parameter that is given; None if one is invalid."""
    if not given and attributes == {field.alias: ""}:
        return {}
    value, errors = _parsed(field, attributes, given)
    if errors:
        return None
    return {name: getattr(value, attributes[name]) if attributes[name] else value for name in given}


def _reads_the_same(field: Any, attributes: Mapping[str, str], *spellings: Mapping[str, str]) -> bool:
    """Whether two spellings are one value; if not, the endpoint would see another than the client sent.

    All of a model is compared, since its validators may keep what was sent. Equal values may differ in their type, as 1
    and 1.0 do, and different ones may look the same, as secrets do.
    """
    (one, _), (other, errors) = (_parsed(field, attributes, each) for each in spellings)
    try:
        return not errors and repr(one) == repr(other) and bool(one == other)
    except Exception:  # of values that cannot be compared, such as Decimal("sNaN")
        return False


def spelled(path: str) -> bytes:
    """The path as a client would send it."""
    return quote(path, _UNQUOTED).encode()


def _pairs(query_string: bytes) -> Mapping[str, str] | None:
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        return None
    query = dict(pairs)
    return query if len(query) == len(pairs) else None


def _tree(dependant: Any) -> Iterator[Any]:
    yield dependant
    for each in dependant.dependencies:
        yield from _tree(each)


def _asked(dependant: Any) -> Iterator[str]:
    """What a dependency or an endpoint asks for that is the caller's."""
    if dependant.header_params:
        yield "headers"
    if dependant.cookie_params:
        yield "cookies"
    if dependant.body_params:
        yield "the body"
    scopes = dependant.security_scopes_param_name or dependant.own_oauth_scopes
    if scopes or isinstance(inspect.unwrap(dependant.call), SecurityBase):
        yield "credentials"
    for parameter in (dependant.request_param_name, dependant.http_connection_param_name):
        if parameter is not None:
            yield from _attributes(dependant.call, parameter)


def _attributes(call: Callable[..., Any], parameter: str) -> Iterator[str]:
    """What a function reads of its request, by its source."""
    function = call if inspect.isroutine(call) or inspect.isclass(call) else type(call).__call__
    try:
        tree = ast.parse(dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == parameter:
                if attribute in _OF_THE_CALLER:
                    yield _OF_THE_CALLER[attribute]


def _streams(route: Any) -> bool:
    endpoint = inspect.unwrap(route.endpoint)
    try:
        returned = get_type_hints(endpoint).get("return")
    except Exception:  # a name that cannot be resolved
        returned = None
    response_class = getattr(route.response_class, "value", route.response_class)
    is_generator = inspect.isasyncgenfunction(endpoint) or inspect.isgeneratorfunction(endpoint)
    return is_generator or any(
        isinstance(kind, type) and issubclass(kind, _STREAMS) for kind in (returned, response_class)
    )
