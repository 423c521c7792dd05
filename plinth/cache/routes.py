"""`@cached_response`, and which requests the routes that have it answer."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import Scope

from plinth.cache.cached import unpack
from plinth.cache.entries import Caching, load_seconds
from plinth.cache.inputs import Inputs, faults
from plinth.cache.tags import Tag, expect_tag
from plinth.http import FastRoute

log = logging.getLogger(__name__)

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

MAX_URL_BYTES = 2000
"""A longer path with its query is not cached, since it is the client that chooses it."""
# Attributes of an endpoint. ValidatorsMiddleware reads the second one, and adds it to the response.
_RULE, _CACHE_CONTROL = "cached_response", "cache_control"
_BYTES_PER_MATCH = 1500
# Whether they match depends on the path and the method alone.
_PLAIN = {each.matches for each in (APIRoute, FastRoute, Route, Mount, WebSocketRoute, APIWebSocketRoute)}


@dataclass(frozen=True, slots=True)
class Rule:
    ttl: float
    tags: tuple[Tag, ...]
    missing_ttl: float


def cached_response(
    *, ttl: float, tags: Iterable[Tag], max_age: int = 0, missing_ttl: float = 0.0
) -> Callable[[Endpoint], Endpoint]:
    """Cache the response of a public GET for `ttl` seconds, or until one of `tags` is invalidated.

    Every client gets the same response, so it may depend on nothing but the path and the declared query parameters:
    a route that asks for more is refused at start-up. The parameters of a tag are parameters of the path. A 404 that
    the route declares is cached for `missing_ttl` seconds; creating the resource must then invalidate one of the tags.
    `max_age` is how many seconds a client may reuse the response without revalidation; invalidations do not reach
    clients.
    """
    rule = Rule(ttl, tuple([expect_tag(tag) for tag in tags]), missing_ttl)

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _RULE, rule)
        setattr(endpoint, _CACHE_CONTROL, b"public, max-age=%d" % max_age if max_age else b"public, no-cache")
        return endpoint

    return mark


@dataclass(frozen=True, slots=True)
class CachedRoute:
    path: str
    inputs: Inputs
    rule: Rule
    endpoint: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """A request that a cached route answers."""

    caching: Caching
    route: CachedRoute
    root_path: str
    path: str
    query: str
    bytes: int
    """What it takes in memory."""


class CachedRoutes:
    """The cached routes of an app, and how requests map to keys."""

    def __init__(self) -> None:
        self.tags: set[Tag] = set()
        """The tags of all routes."""
        self.app: FastAPI | None = None
        self._routes: list[BaseRoute] = []
        """Those of the app, when `_flat` was made."""
        self._flat: list[tuple[Any, Any, CachedRoute | None]] = []
        """The routes in the order in which they are tried, those of included routers too, up to the last cached one."""
        self._unshareable: set[str] = set()

    def add_all_of(self, app: FastAPI) -> None:
        """Add the decorated routes of the app. Raises ValueError for those that cannot be cached, and says why."""
        self.app = app
        self._routes = [*app.routes]
        flat = [(*_matching(route), _cached(route)) for route in iter_route_contexts(app.routes)]
        while flat and flat[-1][2] is None:
            flat.pop()
        self._flat = flat
        self.tags |= {tag for *_, cached in flat if cached for tag in cached.rule.tags}

    def have_changed(self) -> bool:
        """Whether routes were added to the app since the last call; then nothing that `match` returned is certain."""
        if self.app is None or self.app.routes == self._routes:
            return False
        self._flat = []
        try:
            self.add_all_of(self.app)
        except ValueError:
            log.exception("A route that was added later cannot be cached, so none is")
        return True

    def match(self, scope: Scope) -> tuple[CachedRoute, Hit | None] | None:
        """Return the cached route that would answer a GET, with how it is cached, if it is.

        None if another route would answer, or none. As the app itself does, it takes the first route that matches.
        """
        kept = {name: scope[name] for name in ("type", "path", "root_path", "method", "app") if name in scope}
        kept["headers"] = []
        path = _below(kept.get("root_path", ""), kept["path"])
        for may_match, matches, cached in self._flat:
            if may_match is None:
                return None  # it may match by anything, and so nothing is known of the routes after it
            if may_match(path) and matches(kept)[0] is Match.FULL:
                return (cached, self._hit(scope, cached)) if cached else None
        return None

    @staticmethod
    def has_in_memory(scope: Scope) -> bool:
        """Whether the request has been answered before, and its response is kept in memory."""
        cache = scope.get("state", {}).get("cache")
        hit = cache.urls.get((scope.get("root_path", ""), scope["path"], scope["query_string"])) if cache else None
        return hit is not None and cache.peek(hit.caching) is not None

    def mark_unshareable(self, route: CachedRoute, reason: str) -> None:
        """Cache no more of a route, whose response was found to be one client's only."""
        if route.path not in self._unshareable:
            self._unshareable.add(route.path)
            log.warning("%s: %s, so it is not cached. Remove @cached_response", route.path, reason)

    def _hit(self, scope: Scope, route: CachedRoute) -> Hit | None:
        root_path, path = scope.get("root_path", ""), scope["path"]
        if route.path in self._unshareable or len(root_path) + len(path) + len(scope["query_string"]) > MAX_URL_BYTES:
            return None
        found = route.inputs.read(_below(root_path, path), scope["query_string"])
        if found is None:
            return None
        texts, query = found
        names = tuple([tag.fill(texts) for tag in route.rule.tags])
        seconds = load_seconds(route.rule.ttl, route.rule.missing_ttl)
        caching = Caching(f"GET {root_path} {path}?{query}", names, unpack, seconds)
        size = _BYTES_PER_MATCH + 8 * (len(caching.key) + len(scope["query_string"])) + 4 * sum(map(len, names))
        return Hit(caching, route, root_path, path, query, size)


def _matching(route: RouteContext) -> tuple[Any, Any]:
    """What decides whether a route may match a path, None where it may be anything, and whether it matches."""
    is_plain = type(route.original_route).matches in _PLAIN
    return (route.path_regex.match if is_plain else None), route.matches


def _below(root_path: str, path: str) -> str:
    """The part of a path that routes match."""
    return path[len(root_path) :] if root_path and path.startswith(f"{root_path}/") else path


def _cached(route: RouteContext) -> CachedRoute | None:
    """Raises ValueError for a route that cannot be cached."""
    rule: Rule | None = getattr(route.endpoint, _RULE, None)
    if rule is None or route.path is None or route.endpoint is None:
        return None
    for tag in rule.tags:
        if unknown := [name for name in tag.parameters if name not in route.path_regex.groupindex]:
            raise ValueError(
                f"@cached_response of {route.path}: {tag!r} needs {', '.join(unknown)}, which the path does not have."
            )
    for fault in faults(route):
        raise ValueError(f"@cached_response of {route.path}: it {fault}.")
    if 404 not in route.responses:
        rule = replace(rule, missing_ttl=0.0)
    return CachedRoute(route.path, Inputs(route), rule, route.endpoint)
