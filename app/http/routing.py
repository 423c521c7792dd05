"""Endpoints that ask for the usual take a short way: what FastAPI means, without finding out anew what that is.

For each request FastAPI walks through everything that an endpoint could ask for. Here that is done once. Parameters of
path and query, a JSON body and dependencies that are coroutines, or yield in `function` scope, are the usual. Whatever
is not (other parameters, a test's override, tracing), and every request that is wrong, goes on to FastAPI as it came:
so there is one documentation, one set of errors and one meaning.
"""

from contextlib import AsyncExitStack
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi._compat import ModelField
from fastapi.datastructures import DefaultPlaceholder
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from app.http.plan import Plan, Unusual


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


class _Route(APIRoute):
    """Takes the short way where there is one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._short_ways: dict[int, tuple[Any, _ShortWay | None]] = {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        short_way = self._short_way(scope)
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
        await super().handle(scope, receive, send)

    def _short_way(self, scope: Scope) -> _ShortWay | None:
        # What `include_router` made of this route: it may ask for more.
        context = scope.get("fastapi", {}).get("effective_route_context")
        route: Any = context if context and context.original_route is self else self
        overridden = getattr(route.dependency_overrides_provider, "dependency_overrides", None)
        if overridden or scope["method"] not in route.methods or "fastapi.telemetry" in scope:
            return None
        if id(route) not in self._short_ways:
            self._short_ways[id(route)] = route, _short_way(route)  # kept, so that the id stays its own
        return self._short_ways[id(route)][1]


def _short_way(route: Any) -> _ShortWay | None:
    try:
        return _ShortWay(route)
    except Unusual:
        return None


class Router(APIRouter):
    """A module's router. Requests for another prefix pass it by."""

    def __init__(self, prefix: str, **options: Any) -> None:
        super().__init__(prefix=prefix, route_class=_Route, **options)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if self.prefix not in scope["path"]:
            return Match.NONE, {}
        return super().matches(scope)
