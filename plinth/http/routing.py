"""Endpoints that ask for the usual take a short way: what FastAPI means, without finding out anew what that is.

For each request FastAPI walks through its routes, and through everything that an endpoint could ask for. Here that is
done once. Parameters of path and query, a JSON body and dependencies that are coroutines, or yield in `function` scope,
are the usual. Whatever is not (other parameters, a test's override, tracing), and every request that is wrong, goes on
to FastAPI as it came: so there is one documentation, one set of errors and one meaning.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi._compat import ModelField
from fastapi.datastructures import DefaultPlaceholder
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Message, Receive, Scope, Send

from plinth.http.plan import Plan, Unusual


class Digits(Convertor[str]):
    """`{id:digits}` in a path, so that `/search` is not taken for an id."""

    regex = "[0-9]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("digits", Digits())


class _ShortWay:
    """An endpoint as one ASGI application."""

    def __init__(self, route: Any) -> None:
        """Raises Unusual."""
        filtered = (
            route.response_model_include
            or route.response_model_exclude
            or not route.response_model_by_alias
            or route.response_model_exclude_unset
            or route.response_model_exclude_defaults
            or route.response_model_exclude_none
        )
        empty = route.status_code == 204 and not route.response_field
        own_class = not isinstance(route.response_class, DefaultPlaceholder)
        if filtered or own_class or not (route.response_field or empty) or route.max_body_size is not None:
            raise Unusual
        self._plan = Plan(route.dependant)
        self.reads_body = self._plan.reads_body
        self._field: ModelField | None = route.response_field
        self._status = route.status_code or 200

    async def __call__(self, request: Request) -> Response:
        """Raises Unusual before it calls anything."""
        body = await _json(request) if self.reads_body else None
        if not self._plan.yields:
            return await self._answer(request, body, None)
        async with AsyncExitStack() as stack:  # what is open ends before the answer leaves: a commit may fail
            return await self._answer(request, body, stack)

    async def _answer(self, request: Request, body: Any, stack: AsyncExitStack | None) -> Response:
        extra = _nothing_yet() if self._plan.sets_headers else None
        result = await self._plan(request, extra, body, stack)
        if isinstance(result, Response):
            return result
        content = _serialized(self._field, result) if self._field else b""
        status = (extra and extra.status_code) or self._status
        response = Response(content, status, media_type="application/json")
        if extra:
            response.raw_headers += extra.raw_headers
        return response


def _nothing_yet() -> Response:
    """The answer on which endpoints and dependencies may set a status and headers."""
    response = Response()
    response.raw_headers.clear()
    response.status_code = None  # type: ignore[assignment]
    return response


def _serialized(field: ModelField, result: Any) -> bytes:
    value, errors = field.validate(result, loc=("response",))
    if errors:
        raise ResponseValidationError(errors=errors, body=result)
    return field.serialize_json(value)


async def _json(request: Request) -> Any:
    """The body. Raises Unusual where it is none, or none that calls itself JSON."""
    body = await request.body()
    try:
        if request.headers.get("content-type") == "application/json":
            return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    raise Unusual


def _again(request_body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": request_body, "more_body": False}

    return receive_again


@dataclass(frozen=True, slots=True)
class _Found:
    context: RouteContext
    short_way: _ShortWay | None


class _Routes:
    """Stands before FastAPI's router, and finds what that would find."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._long_way = app.router.middleware_stack
        self._by_path: dict[tuple[str, str], _Found] = {}
        self._by_pattern: list[_Found] = []
        for context in iter_route_contexts(app.routes):
            if context.methods is None:  # whatever it serves, the routes after it may be in its shadow
                break
            self._add(_Found(context, _short_way(context)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        short_way = self._find(scope) if scope["type"] == "http" else None
        if short_way:
            request = Request(scope, receive, send)
            try:
                response = await short_way(request)
            except Unusual:
                if short_way.reads_body:
                    receive = _again(await request.body(), receive)
            else:
                await response(scope, receive, send)
                return
        await self._long_way(scope, receive, send)

    def _add(self, found: _Found) -> None:
        path = found.context.path or ""
        if "{" in path:
            self._by_pattern.append(found)
            return
        for method in found.context.methods or ():
            if not self._matching(method, path):
                self._by_path.setdefault((method, path), found)

    def _find(self, scope: Scope) -> _ShortWay | None:
        method, path = scope["method"], scope["path"]
        if self._app.dependency_overrides or scope["root_path"] or "fastapi.telemetry" in scope:
            return None
        parameters: dict[str, Any] = {}
        found = self._by_path.get((method, path))
        if found is None:
            matching = self._matching(method, path)
            if matching is None:
                return None
            found, parameters = matching
        if found.short_way:
            scope["path_params"] = parameters
            scope["endpoint"] = found.context.endpoint
            scope["route"] = found.context.original_route
        return found.short_way

    def _matching(self, method: str, path: str) -> tuple[_Found, dict[str, Any]] | None:
        for found in self._by_pattern:
            context = found.context
            if method in context.methods and (match := context.path_regex.match(path)):  # type: ignore[operator]
                convertors = context.param_convertors
                return found, {name: convertors[name].convert(text) for name, text in match.groupdict().items()}
        return None


def add_short_ways(app: FastAPI) -> None:
    """Call it when the routers are included; routes that come later take FastAPI's way."""
    app.router.middleware_stack = _Routes(app)


def _short_way(context: RouteContext) -> _ShortWay | None:
    try:
        return _ShortWay(context) if isinstance(context.original_route, APIRoute) else None
    except Unusual:
        return None
