"""Fast path: resolves each endpoint's dependency tree once, at start-up.

On each request FastAPI walks through the dependencies of an endpoint and looks at the kind of every parameter.
`FastRoute` does this when the route is made, by FastAPI's documented hook for other route classes. FastAPI's own
handler serves what it does not support (endpoints that stream or take forms, `use_cache=False`, ...), requests that
are traced, and every request while `dependency_overrides` is set. The answers are the same either way. Routing,
exception handling and body limits are FastAPI's.
"""

import re
from collections.abc import Callable, Coroutine
from functools import cache, partial
from typing import Any

from fastapi import BackgroundTasks, Request, Response, routing
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import APIRoute, serialize_response
from fastapi.utils import is_body_allowed_for_status_code
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match
from starlette.types import Message, Receive, Scope

from plinth.http.answering import Handler, answering
from plinth.http.dependants import Plan, plan_for


class DigitsConvertor(Convertor[str | int]):
    """`{id:digits}` in a path matches digits only, so that `/search` is not an id. The value stays a string."""

    regex = "[0-9]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str | int) -> str:
        return str(value)


register_url_convertor("digits", DigitsConvertor())


class FastRoute(APIRoute):
    """Use it as `APIRouter(prefix="/api/products", route_class=FastRoute)`.

    A subclass may override `get_route_handler` as that of any route class.
    """

    def get_route_handler(self) -> Handler:
        stock = super().get_route_handler()
        plan = plan_for(self)
        # A handler that another module made is an integration's, or that of a route class further up. It must run.
        is_stock = getattr(stock, "__globals__", None) is vars(routing)
        return answering(_fast_handler(plan, stock) if plan and is_stock else stock)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        # FastAPI tries the routes one by one. This rules out most of the others in a tenth of the time.
        return super().matches(scope) if _longest_literal(self.path) in scope["path"] else (Match.NONE, {})


@cache
def _longest_literal(path: str) -> str:
    """The longest part of a path template that every matching path contains, with any prefix."""
    return max(re.split(r"\{[^}]*\}", path), key=len)


def _fast_handler(plan: Plan, stock: Handler) -> Handler:
    respond = _responder(plan)

    async def handle(request: Request) -> Response:
        if not (plan.is_current() and _is_supported(request.scope)):
            return await stock(request)
        body: Any = None
        if plan.reads_body:
            try:
                await request.body()
            except Exception as error:
                return await stock(Request(request.scope, _raising(error)))
            if request.headers.get("content-type") != "application/json":
                return await stock(request)
            try:
                body = await request.json()
            except (ValueError, RecursionError) as error:
                return await stock(_Unparsable(request, error))
        changes = _empty_response() if plan.uses_response else None
        tasks = BackgroundTasks() if plan.uses_tasks else None
        arguments = await plan.solve(request, body, changes, tasks)
        call: Any = plan.dependant.call
        result = await (call(**arguments) if plan.is_coroutine else run_in_threadpool(call, **arguments))
        if not isinstance(result, Response):
            return await respond(request, result, changes, tasks)
        if result.background is None:
            result.background = tasks
        return result

    return handle


def _is_supported(scope: Scope) -> bool:
    """Not traced, and inside of what FastAPI puts around a handler."""
    return "fastapi.telemetry" not in scope and "fastapi_middleware_astack" in scope and "fastapi_inner_astack" in scope


class _Unparsable(Request):
    """Lets FastAPI's handler translate what parsing the body raised, without parsing it again."""

    def __init__(self, request: Request, error: Exception) -> None:
        super().__init__(request.scope)
        self._request, self._error = request, error

    async def body(self) -> bytes:
        return await self._request.body()

    async def json(self) -> Any:
        raise self._error


def _raising(error: Exception) -> Receive:
    """Lets FastAPI's handler translate what reading the body raised. Reading it again could block."""

    async def receive() -> Message:
        raise error

    return receive


def _empty_response() -> Response:
    """The `Response` parameter, on which dependencies and the endpoint may set a status and headers."""
    response = Response()
    del response.headers["content-length"]
    response.status_code = None  # type: ignore[assignment]
    return response


def _responder(plan: Plan) -> Callable[..., Coroutine[Any, Any, Response]]:
    """Makes a response of what the endpoint returns."""
    route = plan.route
    field, status = route.response_field, route.status_code
    is_default = isinstance(route.response_class, DefaultPlaceholder)
    response_class: Any = route.response_class.value if is_default else route.response_class
    to_json = is_default and field is not None  # by Pydantic, straight to bytes
    if to_json:
        response_class = partial(Response, media_type="application/json")
    options = {
        "include": route.response_model_include,
        "exclude": route.response_model_exclude,
        "by_alias": route.response_model_by_alias,
        "exclude_unset": route.response_model_exclude_unset,
        "exclude_defaults": route.response_model_exclude_defaults,
        "exclude_none": route.response_model_exclude_none,
    }

    async def serialize(request: Request, result: Any) -> Any:
        return await serialize_response(
            field=field,
            response_content=result,
            is_coroutine=plan.is_coroutine,
            endpoint_ctx=plan.context(request),
            dump_json=to_json,
            **options,
        )

    async def respond(
        request: Request, result: Any, changes: Response | None, tasks: BackgroundTasks | None
    ) -> Response:
        value, errors = field.validate(result) if to_json and plan.is_coroutine else (None, True)
        content = await serialize(request, result) if errors else field.serialize_json(value, **options)
        arguments: dict[str, Any] = {"background": tasks}
        changed = changes.status_code if changes else None
        code = changed or status or changed
        if code is not None:
            arguments["status_code"] = code
        response: Response = response_class(content, **arguments)
        if not is_body_allowed_for_status_code(response.status_code):
            response.body = b""
        if changes:
            response.headers.raw.extend(changes.headers.raw)
        return response

    return respond
