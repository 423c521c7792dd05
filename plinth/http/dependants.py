"""Resolves an endpoint's dependency tree once, at start-up, into a flat list of parameters to read and calls to make.

`dependants` and `parameters` look inside FastAPI: at `Dependant`, at `ModelField`, and at the functions that solve
them. They fail closed: `plan_for` returns None, and FastAPI's own handler serves the endpoint, if FastAPI's minor
version is not the known one, if a name that is used here is missing or has other fields, and for what
`_check_supported` refuses. Bodies, generators and invalid requests are left to FastAPI's own functions, so that there
is one meaning and one set of errors.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import fastapi
from fastapi import BackgroundTasks, Request, Response, params, routing
from fastapi._compat import ModelField
from fastapi.dependencies import models, utils
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import EndpointContext, RequestValidationError
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from plinth.http.parameters import InvalidParameter, Reader, parse_query, readers

_log = logging.getLogger(__name__)

_KNOWN_VERSION = "0.165."
_KNOWN_FIELDS: dict[type[Any], str] = {
    Dependant: "path_params query_params header_params cookie_params body_params dependencies name call"
    " request_param_name websocket_param_name http_connection_param_name response_param_name"
    " background_tasks_param_name security_scopes_param_name own_oauth_scopes parent_oauth_scopes use_cache path scope"
    " concurrency",
    ModelField: "field_info name mode config",
}
# The places of the values that no step provides.
_REQUEST, _RESPONSE, _TASKS = range(3)


class _Unsupported(Exception):  # noqa: N818 - a signal
    """FastAPI's handler serves this endpoint."""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A dependency or, as the last step, the endpoint: its arguments, and the place of its result among the values."""

    dependant: Dependant
    call: Callable[..., Any]
    key: Any
    place: int
    results: tuple[tuple[str, int], ...]
    parameters: tuple[tuple[str, Reader], ...]
    is_coroutine: bool
    is_generator: bool


class Plan:
    """The steps of one endpoint, in the order in which FastAPI takes them."""

    def __init__(self, route: Any) -> None:
        """Raises _Unsupported. `route` is an APIRoute, or what an inclusion makes of it, with the same attributes."""
        self.route = route
        self.dependant: Dependant = route.dependant
        self.is_coroutine = models._is_coroutine_callable(self.dependant.call)
        self.reads_query = self.reads_body = self.uses_response = self.uses_tasks = False
        self._overrides = route.dependency_overrides_provider
        self._dependencies = [*self.dependant.dependencies]
        self._places: dict[Any, int] = {}
        response_class = getattr(route.response_class, "value", route.response_class)
        if _is_generator(self.dependant.call) or issubclass(response_class, EventSourceResponse):
            raise _Unsupported("a stream")
        _check_supported(self.dependant)
        self._steps = [*self._resolve(self.dependant)]

    def is_current(self) -> bool:
        """False while dependencies are overridden, and once the route's were changed in place."""
        overridden = self._overrides and self._overrides.dependency_overrides
        return not overridden and self.dependant.dependencies == self._dependencies

    async def solve(
        self, request: Request, body: Any, response: Response | None, tasks: BackgroundTasks | None
    ) -> dict[str, Any]:
        """Run the dependencies, and return the endpoint's arguments. Raises RequestValidationError."""
        values: list[Any] = [request, response, tasks, *self._steps]  # each step is replaced by its result
        query = parse_query(request) if self.reads_query else {}
        try:
            for step in self._steps:
                arguments = {name: values[place] for name, place in step.results}
                for name, read in step.parameters:
                    arguments[name] = read(request, query)
                if step.dependant.body_params:
                    arguments |= await self._read_body(step.dependant, body, request)
                if step.dependant is self.dependant:
                    return arguments
                if step.is_generator:
                    values[step.place] = await _enter(step.dependant, arguments, request)
                elif step.is_coroutine:
                    values[step.place] = await step.call(**arguments)
                else:
                    values[step.place] = await run_in_threadpool(step.call, **arguments)
        except InvalidParameter:
            done = {each.key: values[each.place] for each in self._steps[: self._steps.index(step)]}
        # FastAPI finds all that is wrong. It takes the results so far from its cache: nothing is called twice.
        solved = await utils.solve_dependencies(
            request=request,
            dependant=self.dependant,
            body=body,
            background_tasks=tasks,
            response=response,
            dependency_overrides_provider=self._overrides,
            dependency_cache=done,
            async_exit_stack=request.scope["fastapi_inner_astack"],
            embed_body_fields=self.route._embed_body_fields,
        )
        if solved.errors:
            raise RequestValidationError(solved.errors, body=body, endpoint_ctx=self.context(request))
        return solved.values

    def context(self, request: Request) -> EndpointContext:
        """What FastAPI's validation errors say about the endpoint."""
        context = routing._extract_endpoint_context(self.dependant.call).copy()
        context["path"] = f"{request.method} {request.scope.get('root_path', '').rstrip('/')}{self.dependant.path}"
        return context

    async def _read_body(self, dependant: Dependant, body: Any, request: Request) -> dict[str, Any]:
        embed = self.route._embed_body_fields
        arguments, errors = await utils.request_body_to_args(dependant.body_params, body, embed)
        if errors and dependant is self.dependant:  # of the last step: all else is valid
            raise RequestValidationError(errors, body=body, endpoint_ctx=self.context(request))
        if errors:
            raise InvalidParameter
        return arguments

    def _resolve(self, dependant: Dependant) -> Iterator[_Step]:
        """The steps of a dependency and of all that it depends on, but for those that are resolved already."""
        results: list[tuple[str | None, int]] = [
            (dependant.request_param_name, _REQUEST),
            (dependant.http_connection_param_name, _REQUEST),
            (dependant.response_param_name, _RESPONSE),
            (dependant.background_tasks_param_name, _TASKS),
        ]
        for each in dependant.dependencies:
            _check_supported(each)
            key = models._get_cache_key(dependant=each)
            if key not in self._places:
                yield from self._resolve(each)
            results.append((each.name, self._places[key]))
        self.reads_query |= bool(dependant.query_params)
        self.reads_body |= bool(dependant.body_params)
        self.uses_response |= dependant.response_param_name is not None
        self.uses_tasks |= dependant.background_tasks_param_name is not None
        key = models._get_cache_key(dependant=dependant)
        self._places[key] = place = len(self._places) + 3
        named = tuple((name, place) for name, place in results if name is not None)
        call: Any = dependant.call
        is_coroutine, is_generator = models._is_coroutine_callable(call), _is_generator(call)
        yield _Step(dependant, call, key, place, named, tuple(readers(dependant)), is_coroutine, is_generator)


def plan_for(route: APIRoute) -> Plan | None:
    """The plan of a route that is being made or included; None if FastAPI is to serve it."""
    try:
        if not fastapi.__version__.startswith(_KNOWN_VERSION):
            raise _Unsupported(f"FastAPI {fastapi.__version__}")
        for kind, names in _KNOWN_FIELDS.items():
            if {each.name for each in fields(kind)} != set(names.split()):
                raise _Unsupported(f"other fields in {kind.__name__}")
        inclusion: Any = routing._effective_route_context_var.get()
        return Plan(inclusion if inclusion is not None and inclusion.original_route is route else route)
    except _Unsupported as reason:
        _log.debug("FastAPI's own handler serves %s: %s", route.path, reason)
    except Exception:
        _log.warning("FastAPI's own handler serves %s", route.path, exc_info=True)
    return None


def _check_supported(dependant: Dependant) -> None:
    for name, found in {
        "a WebSocket": dependant.websocket_param_name,
        "SecurityScopes": dependant.security_scopes_param_name,
        "max_concurrency": dependant.concurrency,
        "use_cache=False": not dependant.use_cache,
        "a form": any(isinstance(field.field_info, params.Form) for field in dependant.body_params),
    }.items():
        if found:
            raise _Unsupported(name)


def _is_generator(call: Callable[..., Any] | None) -> bool:
    return models._is_async_gen_callable(call) or models._is_gen_callable(call)


async def _enter(dependant: Dependant, arguments: dict[str, Any], request: Request) -> Any:
    stack = request.scope["fastapi_function_astack" if dependant.scope == "function" else "fastapi_inner_astack"]
    return await utils._solve_generator(dependant=dependant, stack=stack, sub_values=arguments, request=request)
