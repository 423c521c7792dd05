"""Answers of public GETs, kept as the bytes that leave: a hit is served before routing and dependencies.

`@cached_response(ttl=60, tags=["products"])` under a route declares that its answer is the same for everyone, whoever
asks: nothing of a request but its path and its declared query parameters may be seen in it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache import answers
from app.cache.answers import Headers
from app.cache.cache import Cache, Loaded

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

# What a load may not depend on, since its answer is for everyone.
_PERSONAL = frozenset(
    {b"accept-encoding", b"authorization", b"cookie", b"if-match", b"if-modified-since", b"if-none-match", b"range"}
)
_MARK = "cached_response"
_READ_ANSWERS = 500  # kept as they are sent, beside the packed ones


@dataclass(frozen=True, slots=True)
class Rule:
    ttl: float
    stale: float
    tags: tuple[str, ...]
    max_age: int


def cached_response(
    *, ttl: float, tags: Iterable[str], stale: float = 0.0, max_age: int = 0
) -> Callable[[Endpoint], Endpoint]:
    """Keep what a public GET answers for `ttl` seconds, or until one of `tags` is invalidated.

    Tags may hold path parameters: `"product:{id}"`. For `stale` seconds more the old answer is served while there is a
    new one made. `max_age` is how many seconds clients may keep it without asking again; they hear of no invalidation.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _MARK, Rule(ttl, stale, tuple(tags), max_age))
        return endpoint

    return mark


@dataclass(frozen=True, slots=True)
class _Route:
    path: str
    regex: Any
    """Of the path, with a group for each parameter."""
    query: frozenset[str]
    """The parameters that it declares."""
    rule: Rule


@dataclass(frozen=True, slots=True)
class Asked:
    key: str
    names: list[str]
    rule: Rule


class CachedRoutes:
    """The decorated routes of an app. Whatever they do not declare is not asked of the cache."""

    def __init__(self) -> None:
        self._by_path: dict[str, _Route] = {}
        self._by_pattern: list[_Route] = []

    def add_all_of(self, app: FastAPI) -> None:
        for route in iter_route_contexts(app.routes):
            rule = getattr(route.endpoint, _MARK, None)
            if rule is None or route.path is None:
                continue
            cached = _Route(route.path, route.path_regex, frozenset(_declared(route.dependant)), rule)
            if "{" in route.path:
                self._by_pattern.append(cached)
            else:
                self._by_path[route.path] = cached

    def find(self, scope: Scope) -> Asked | None:
        path: str = scope["path"]
        route, parameters = self._by_path.get(path), {}
        if route is None:
            for candidate in self._by_pattern:
                if match := candidate.regex.match(path):
                    route, parameters = candidate, match.groupdict()
                    break
            else:
                return None
        query = _canonical(scope["query_string"], route.query)
        if query is None or not all(map(_is_canonical, parameters.values())):
            return None
        names = [tag.format(**parameters) for tag in route.rule.tags] if parameters else [*route.rule.tags]
        return Asked(f"GET {path}?{query}", names, route.rule)


def _declared(dependant: Any) -> Iterator[str]:
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from (each.alias or name for name, each in kind.model_fields.items())
        else:
            yield field.alias
    for each in dependant.dependencies:
        yield from _declared(each)


def _canonical(query: bytes, declared: frozenset[str]) -> str | None:
    """One spelling for all that mean the same; None for what is not declared, said twice or no UTF-8."""
    if not query:
        return ""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        return None
    given = dict(pairs)
    if len(given) < len(pairs) or not declared.issuperset(given):
        return None
    return urlencode(sorted(pairs))


def _is_canonical(parameter: str) -> bool:
    """007 is 7 to an endpoint, and would be another one to an invalidation."""
    return not parameter.isdigit() or (parameter.isascii() and (parameter[0] != "0" or parameter == "0"))


class _NotShared(Exception):  # noqa: N818 - it is no error
    """The answer was for one alone."""


class ResponseCacheMiddleware:
    """Serves the decorated routes of `routes` from the cache that the lifespan put into the state.

    Stands inside of whatever adds to every answer, and outside of compression. `tell` adds `X-Cache`.
    """

    def __init__(
        self, app: ASGIApp, routes: CachedRoutes, gzip_level: int, gzip_minimum_bytes: int, tell: bool = False
    ) -> None:
        self.app = app
        self.routes = routes
        self.gzip = gzip_level, gzip_minimum_bytes
        self.tell = tell
        self.read = lru_cache(maxsize=_READ_ANSWERS)(answers.read)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.routes.find(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if asked is None:
            await self.app(scope, receive, send)
            return
        cache: Cache = scope["state"]["cache"]
        ours: list[Message] = []  # what was answered if the load was ours
        loads = 0

        async def load() -> Loaded:
            nonlocal loads
            loads += 1
            return await self._load(scope, asked.rule, ours)

        try:
            answer = await cache.fetch(asked.key, asked.names, load, self.read)
        except _NotShared:
            if not ours:
                await self.app(scope, receive, send)
            for message in ours:
                await send(message)
            return
        age = max(0, int(time() - answer.made_at))
        told: Headers = [(b"age", b"%d" % age)]
        if self.tell:
            told.append((b"x-cache", b"miss" if loads else b"stale" if age > asked.rule.ttl else b"hit"))
        await answer.send(*_conditions(scope), told, send)

    async def _load(self, scope: Scope, rule: Rule, ours: list[Message]) -> Loaded:
        headers = [header for header in scope["headers"] if header[0] not in _PERSONAL]
        capture = _Capture(ours)
        try:
            await self.app({**scope, "headers": headers, "state": dict(scope["state"])}, _nothing_more, capture.send)
        except OSError:
            if not capture.streams:
                raise
        if capture.streams:
            ours.clear()
        if capture.streams or not capture.is_for_everyone or len(ours) != 2:
            raise _NotShared
        start, body = ours
        packed = answers.made([*start["headers"]], body.get("body", b""), rule.max_age, *self.gzip)
        return Loaded(packed, rule.ttl, rule.stale)


class _Capture:
    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.is_for_everyone = False
        self.streams = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in message["headers"]}
            self.is_for_everyone = message["status"] == 200 and b"set-cookie" not in names
        elif message.get("more_body") or message["type"] != "http.response.body":
            self.streams = True
            raise OSError("A stream is nothing to keep")  # which ends it, as a client that left does
        self.messages.append(message)


async def _nothing_more() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def _conditions(scope: Scope) -> tuple[bytes, bytes]:
    """`Accept-Encoding` and `If-None-Match`."""
    accept_encoding = if_none_match = b""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            accept_encoding = accept_encoding + b"," + value if accept_encoding else value
        elif name == b"if-none-match":
            if_none_match = if_none_match + b"," + value if if_none_match else value
    return accept_encoding, if_none_match
