"""One of each resource: what the tests of a service create, send and read, declared once.

What runs over all endpoints takes its requests from here, so a new endpoint needs no test of its own for that.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import AsyncClient, Response

COUNT = 3
_OF_AN_ITEM = frozenset({"PUT", "PATCH", "DELETE"})
_WRITES = _OF_AN_ITEM | {"POST"}


@dataclass(frozen=True)
class Resource:
    """A collection at `path`. `create` is the body of POST, PUT and PATCH; `change` of a PATCH that takes less.

    `{n}` in a text stands for another number each time, for what must be unique; what is no text is a function of that
    number: `lambda n: n`. A reference names the id 1 of what it refers to: `create_all` makes three of each in an empty
    database, so that the others can be deleted. One to what has other ids than numbers is the path of that collection
    in braces: `{"supplier_id": "{/api/suppliers}"}`.
    """

    path: str
    create: Mapping[str, Any]
    change: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Form:
    """A body that is sent as a form."""

    fields: Mapping[str, str]


@dataclass(frozen=True)
class Content:
    """A body that is a file. What is PUT so is there for each of the three, as if it had been created."""

    content: bytes
    content_type: str


Body = Mapping[str, Any] | Sequence[Any] | Form | Content | None


class Resources:
    """All of them, in an order in which they can be created.

    `bodies` has the bodies of other endpoints by method and path, None for none: `{("POST", "/api/orders/{id}/pay"):
    None}`. `urls` has those of a GET that needs a query or has other parameters than ids. `ids` are of what is there
    without being created, by the path of its collection: three of each.
    """

    def __init__(
        self,
        *resources: Resource,
        bodies: Mapping[tuple[str, str], Body] | None = None,
        urls: Mapping[str, Sequence[str]] | None = None,
        ids: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self._resources = resources
        self._bodies = bodies or {}
        self._urls = urls or {}
        self._given = {path: [*each] for path, each in (ids or {}).items()}
        self._ids: dict[str, list[Any]] = {**self._given}
        """Of what `create_all` has made at each path, and of what is there without it."""

    async def create_all(self, client: AsyncClient, before: str | None = None) -> None:
        """`before` is the path of a resource: only those that it may refer to are created."""
        self._ids = {**self._given, **{resource.path: [] for resource in self._resources}}
        for resource in self._resources:
            if resource.path == before:
                break
            for number in range(1, COUNT + 1):
                path, body = self._filled(resource.path, 1), self._numbered(resource.create, number)
                answer = await client.post(path, json=body)
                assert answer.status_code == 201, f"POST {path} of the resources: {answer.text}"
                self._ids[resource.path].append(_id_in(answer, number))
        else:
            await self._put_files(client)

    async def _put_files(self, client: AsyncClient) -> None:
        for (method, path), body in self._bodies.items():
            if method == "PUT" and isinstance(body, Content):
                for number in range(1, COUNT + 1):
                    answer = await send(client, method, self._filled(path, number), body)
                    assert answer.is_success, f"PUT {path} of the resources: {answer.text}"

    def request(self, method: str, path: str, number: int) -> tuple[str, Any]:
        """The URL and the body of a write. A DELETE is of the newest, which nothing refers to: `number` counts back."""
        place = COUNT + 1 - number if method == "DELETE" else 1
        return self._filled(path, place), self._numbered(self._body(method, path), COUNT + number)

    def urls(self, path: str) -> Sequence[str]:
        """The URLs of a GET: of the first, of the last, and of one that does not exist."""
        places = (1, COUNT, COUNT + 1) if "{" in path else (1,)
        return self._urls.get(path) or [self._filled(path, place) for place in places]

    def _filled(self, path: str, place: int) -> str:
        """The path with the id of the resource at this place for its last parameter, and of the first for the others.

        Which resource that is, the path before the parameter says. A place after the last is of one that is not there.
        """
        last = path.rfind("{")

        def id(parameter: re.Match[str]) -> str:
            at, ids = place if parameter.start() == last else 1, self._ids.get(path[: parameter.start() - 1], [])
            numbered = not ids or isinstance(ids[0], int)
            return str(at if numbered else ids[at - 1] if at <= len(ids) else UUID(int=at))

        return re.sub(r"\{[^}]*\}", id, path)

    def _numbered(self, value: Any, number: int) -> Any:
        match value:
            case str():
                ids = self._ids.get(value.strip("{}"))
                return ids[0] if ids and value.startswith("{") else value.replace("{n}", str(number))
            case Mapping():
                return {key: self._numbered(each, number) for key, each in value.items()}
            case list() | tuple():
                return [self._numbered(each, number) for each in value]
            case _:
                return value(number) if callable(value) else value

    def _body(self, method: str, path: str) -> Body:
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


async def send(client: AsyncClient, method: str, url: str, body: Any) -> Response:
    """Send what `Resources.request` returns."""
    if isinstance(body, Form):
        return await client.request(method, url, data=body.fields)
    if isinstance(body, Content):
        return await client.request(method, url, content=body.content, headers={"Content-Type": body.content_type})
    return await client.request(method, url, json=body)


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


def _id_in(answer: Response, number: int) -> Any:
    """The id of what was created: a member of the answer, or else its number."""
    body = answer.json() if answer.headers.get("Content-Type", "").endswith("json") else None
    return body.get("id", number) if isinstance(body, dict) else number
