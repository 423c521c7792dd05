"""What an endpoint asks for, worked out once: parameters of path and query, a JSON body, and its dependencies."""

from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi._compat import ModelField, field_annotation_is_sequence
from fastapi.dependencies.models import Dependant
from fastapi.params import Body
from pydantic import BaseModel, ValidationError
from starlette.types import Scope

_Parameter = Callable[[Scope, dict[str, str], Any], Any]
"""Finds its value in the path (of the scope), the query or the body."""


class Unusual(Exception):  # noqa: N818 - it is no error
    """FastAPI's to answer."""


class Plan:
    """What is called for an endpoint, in which order, and with what."""

    def __init__(self, endpoint: Dependant) -> None:
        """Raises Unusual."""
        self.yields = False
        self.sets_headers = False
        self.reads_body = bool(endpoint.body_params)
        self._size = 2  # values: the request and the response, then parameters and results as they are planned
        self._parameters: list[tuple[int, _Parameter]] = []
        self._calls: list[tuple[int, Callable[..., Any], list[tuple[str, int]], bool]] = []
        self._results: dict[Callable[..., Any], int] = {}
        self._endpoint = endpoint
        self._plan(endpoint)

    async def __call__(
        self, request: Request, response: Response | None, body: Any, stack: AsyncExitStack | None
    ) -> Any:
        """What the endpoint returns. Raises Unusual before it calls anything."""
        values: list[Any] = [None] * self._size
        values[:2] = request, response
        scope = request.scope
        query = _query(scope["query_string"]) if scope["query_string"] else {}
        for place, parameter in self._parameters:
            values[place] = parameter(scope, query, body)
        for place, call, sources, yields in self._calls:
            arguments = {name: values[source] for name, source in sources}
            values[place] = await (
                stack.enter_async_context(call(**arguments)) if yields and stack else call(**arguments)
            )
        return values[place]

    def _plan(self, dependant: Dependant) -> int:
        """The place of its result among the values."""
        call: Any = dependant.call
        if call in self._results and dependant.use_cache:
            return self._results[call]
        yields = isasyncgenfunction(call) and dependant.scope == "function"
        if not (yields or iscoroutinefunction(call)) or not _is_usual(dependant):
            raise Unusual
        if dependant.body_params and dependant is not self._endpoint:
            raise Unusual
        sources = [(each.name, self._plan(each)) for each in dependant.dependencies]
        for fields, parameter in (
            (dependant.path_params, _path_parameter),
            (dependant.query_params, _query_parameter),
            (dependant.body_params, _body_parameter),
        ):
            for field in fields:
                sources.append((field.name, self._next()))
                self._parameters.append((sources[-1][1], parameter(field)))
        sources += [(dependant.request_param_name, 0), (dependant.http_connection_param_name, 0)]
        sources += [(dependant.response_param_name, 1)]
        place = self._next()
        self._results.setdefault(call, place)
        named = [(name, source) for name, source in sources if name is not None]
        self._calls.append((place, asynccontextmanager(call) if yields else call, named, yields))
        self.yields |= yields
        self.sets_headers |= dependant.response_param_name is not None
        return place

    def _next(self) -> int:
        self._size += 1
        return self._size - 1


def _is_usual(dependant: Dependant) -> bool:
    return not (
        dependant.header_params
        or dependant.cookie_params
        or dependant.background_tasks_param_name
        or dependant.security_scopes_param_name
        or dependant.own_oauth_scopes
        or dependant.concurrency
    )


def _path_parameter(field: ModelField) -> _Parameter:
    name = field.alias
    return lambda scope, query, body: _valid(field, scope["path_params"][name])


def _query_parameter(field: ModelField) -> _Parameter:
    """All of the query for a model, else the value of one name."""
    information, name = field.field_info, field.alias
    kind: Any = information.annotation
    if _is_model(kind):
        if any(field_annotation_is_sequence(each.annotation) for each in kind.model_fields.values()):
            raise Unusual
        return lambda scope, query, body: _valid(field, query)
    if field_annotation_is_sequence(kind) or information.validate_default or information.validation_alias:
        raise Unusual

    def read(_scope: Scope, query: dict[str, str], _body: Any) -> Any:
        if name in query:
            return _valid(field, query[name])
        if information.is_required():
            raise Unusual
        return field.get_default()

    return read


def _body_parameter(field: ModelField) -> _Parameter:
    if type(field.field_info) is not Body or field.field_info.embed or not _is_model(field.field_info.annotation):
        raise Unusual
    return lambda scope, query, body: _valid(field, body)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _valid(field: ModelField, value: Any) -> Any:
    try:
        return field._type_adapter.validate_python(value, from_attributes=True)
    except ValidationError:
        raise Unusual from None


def _query(sent: bytes) -> dict[str, str]:
    pairs = parse_qsl(sent.decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    if len(query) < len(pairs):
        raise Unusual
    return query
