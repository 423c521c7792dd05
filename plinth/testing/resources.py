"""One of each resource: what the tests of a service create, send and read, declared once.

Whatever runs over all endpoints takes its requests from here, so a new endpoint needs no test of its own for that.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import AsyncClient

COUNT = 3
_OF_AN_ITEM = frozenset({"PUT", "PATCH", "DELETE"})
_WRITES = _OF_AN_ITEM | {"POST"}


@dataclass(frozen=True)
class Resource:
    """A collection at `path`. `create` is the body of POST, PUT and PATCH; `change` of a PATCH that takes less.

    `{n}` in a text stands for another number each time, for what must be unique; what is no text is a function of that
    number: `lambda n: n`. A reference names the id 1 of what it
    refers to: `create_all` makes three of each in an empty database, so that the others can be deleted.
    """

    path: str
    create: Mapping[str, Any]
    change: Mapping[str, Any] | None = None


class Resources:
    """All of them, in an order in which they can be created.

    `bodies` has the bodies of other endpoints by method and path, None for none: `{("POST", "/api/orders/{id}/pay"):
    None}`. `urls` has those of a GET that needs a query or has other parameters than ids.
    """

    def __init__(
        self,
        *resources: Resource,
        bodies: Mapping[tuple[str, str], Mapping[str, Any] | None] | None = None,
        urls: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._resources = resources
        self._bodies = bodies or {}
        self._urls = urls or {}

    async def create_all(self, client: AsyncClient, before: str | None = None) -> None:
        """`before` is the path of a resource: only those that it may refer to are created."""
        for resource in self._resources:
            if resource.path == before:
                break
            for number in range(1, COUNT + 1):
                answer = await client.post(resource.path, json=_numbered(resource.create, number))
                assert answer.status_code == 201, f"POST {resource.path} of the resources: {answer.text}"

    def request(self, method: str, path: str, number: int) -> tuple[str, Any]:
        """The URL and the body of a write. A DELETE is of the newest, which nothing refers to: `number` counts back."""
        numbers = _Ids(COUNT + 1 - number if method == "DELETE" else 1)
        return path.format_map(numbers), _numbered(self._body(method, path), COUNT + number)

    def urls(self, path: str) -> Sequence[str]:
        """The URLs of a GET: of the first, of the last, and of one that does not exist."""
        ids = (1, COUNT, COUNT + 1) if "{" in path else (1,)
        return self._urls.get(path) or [path.format_map(_Ids(id)) for id in ids]

    def _body(self, method: str, path: str) -> Mapping[str, Any] | None:
        if (method, path) in self._bodies:
            return self._bodies[method, path]
        for resource in self._resources:
            if path == resource.path and method == "POST":
                return resource.create
            if re.fullmatch(re.escape(resource.path) + r"/\{[^/]*\}", path) and method in _OF_AN_ITEM:
                return {"PUT": resource.create, "PATCH": resource.change or resource.create}.get(method)
        raise LookupError(
            f"{method} {path} has no body to be tested with: add its resource to tests/app/resources.py, or "
            f'`("{method}", "{path}"): …` to `bodies` there.'
        )


def write_routes(app: FastAPI) -> list[tuple[str, str]]:
    """The method and the path of each endpoint that may change something."""
    return [(method, path) for method, path in _routes(app) if method in _WRITES]


def read_routes(app: FastAPI) -> list[str]:
    """The path of each GET."""
    return [path for method, path in _routes(app) if method == "GET"]


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.path_format is not None:
            yield from ((method, route.path_format) for method in sorted(route.methods or ()))


class _Ids(dict[str, int]):
    """The same id for every parameter of a path."""

    def __init__(self, id: int) -> None:
        self._id = id

    def __missing__(self, _: str) -> int:
        return self._id


def _numbered(value: Any, number: int) -> Any:
    match value:
        case str():
            return value.replace("{n}", str(number))
        case Mapping():
            return {key: _numbered(each, number) for key, each in value.items()}
        case list() | tuple():
            return [_numbered(each, number) for each in value]
        case _:
            return value(number) if callable(value) else value
