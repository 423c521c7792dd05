"""`@cached_response`, and the table of the routes that have it."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.types import Scope

from plinth.cache.tags import Tag, expect_tag

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

# Attributes of an endpoint. ConditionalMiddleware reads the second one, and adds it to the response.
_RULE, _CACHE_CONTROL = "cached_response", "cache_control"
_MAX_MATCHES, _MAX_MATCH_LENGTH = 2000, 200


@dataclass(frozen=True, slots=True)
class Rule:
    ttl: float
    tags: tuple[Tag, ...]
    missing_ttl: float


def cached_response(
    *, ttl: float, tags: Iterable[Tag], max_age: int = 0, missing_ttl: float = 0.0
) -> Callable[[Endpoint], Endpoint]:
    """Cache the response of a public GET for `ttl` seconds, or until one of `tags` is invalidated.

    Every client gets the same response, so it may depend on nothing but the path and the declared query parameters.
    The parameters of a tag are parameters of the path. A 404 that the route declares is cached for `missing_ttl`
    seconds; creating the resource must then invalidate one of the tags. `max_age` is how many seconds a client may
    reuse the response without revalidation; invalidations do not reach clients.
    """
    rule = Rule(ttl, tuple([expect_tag(tag) for tag in tags]), missing_ttl)

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _RULE, rule)
        setattr(endpoint, _CACHE_CONTROL, b"public, max-age=%d" % max_age if max_age else b"public, no-cache")
        return endpoint

    return mark


@dataclass(frozen=True, slots=True)
class _Route:
    path: str
    regex: re.Pattern[str]
    """Matches the path; each parameter is a named group."""
    query: frozenset[str]
    """The declared query parameters."""
    rule: Rule


@dataclass(frozen=True, slots=True)
class Match:
    key: str
    names: tuple[str, ...]
    rule: Rule


BYPASS = Match("", (), Rule(0.0, (), 0.0))
"""A request to a cached route that is not served from the cache."""


class CachedRoutes:
    """The cached routes of an app, and how requests map to keys."""

    def __init__(self) -> None:
        self.tags: set[Tag] = set()
        """The tags of all routes."""
        self._by_path: dict[str, _Route] = {}
        self._by_pattern: list[_Route] = []
        self._matches = lru_cache(maxsize=_MAX_MATCHES)(self._match)

    def add_all_of(self, app: FastAPI) -> None:
        """Add the decorated routes of the app. Raises ValueError for a tag with parameters that are not in the path."""
        for route in iter_route_contexts(app.routes):
            rule = getattr(route.endpoint, _RULE, None)
            if rule is None or route.path is None:
                continue
            _check_tags(route.path, rule, route.path_regex.groupindex)
            self.tags.update(rule.tags)
            if 404 not in route.responses:
                rule = replace(rule, missing_ttl=0.0)
            cached = _Route(route.path, route.path_regex, frozenset(_query_parameters(route.dependant)), rule)
            if "{" in route.path:
                self._by_pattern.append(cached)
            else:
                self._by_path[route.path] = cached

    def match(self, scope: Scope) -> Match | None:
        """Return the key of a GET, `BYPASS`, or None for a route that is not cached."""
        path, query = scope["path"], scope["query_string"]
        # Long URLs are not memoized: clients could fill the memory with them.
        match = self._matches if len(path) + len(query) < _MAX_MATCH_LENGTH else self._match
        return match(path, query)

    def _match(self, path: str, query_string: bytes) -> Match | None:
        route, parameters = self._by_path.get(path), {}
        if route is None:
            for candidate in self._by_pattern:
                if match := candidate.regex.match(path):
                    route, parameters = candidate, match.groupdict()
                    break
            else:
                return None
        query = _canonical_query(query_string, route.query)
        if query is None or not all(map(_is_canonical, parameters.values())):
            return BYPASS
        filled = [tag(**{name: parameters[name] for name in tag.parameters}) for tag in route.rule.tags]
        return Match(f"GET {path}?{query}", tuple([tag.name for tag in filled]), route.rule)


def _check_tags(path: str, rule: Rule, parameters: Iterable[str]) -> None:
    for tag in rule.tags:
        if unknown := [name for name in tag.parameters if name not in parameters]:
            raise ValueError(
                f"@cached_response of {path}: {tag!r} needs {', '.join(unknown)}, which the path does not have."
            )


def _query_parameters(dependant: Any) -> Iterator[str]:
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from (each.alias or name for name, each in kind.model_fields.items())
        else:
            yield field.alias
    for each in dependant.dependencies:
        yield from _query_parameters(each)


def _canonical_query(query: bytes, declared: frozenset[str]) -> str | None:
    """One spelling for equal queries; None for undeclared or repeated parameters and invalid UTF-8."""
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
    """False for 007, which is 7 to the endpoint, but would have a tag that no invalidation uses."""
    return not parameter.isdigit() or (parameter.isascii() and (parameter[0] != "0" or parameter == "0"))
