"""Which routes are cached, and what of them a request asks for."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.types import Scope

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_MARK = "cached_response"
_REMEMBERED, _SHORT = 2000, 200


@dataclass(frozen=True, slots=True)
class Rule:
    ttl: float
    stale: float
    tags: tuple[str, ...]
    missing_ttl: float


def cached_response(
    *, ttl: float, tags: Iterable[str], stale: float = 0.0, max_age: int = 0, missing_ttl: float = 0.0
) -> Callable[[Endpoint], Endpoint]:
    """Keep what a public GET answers for `ttl` seconds, or until one of `tags` is invalidated.

    Tags may hold path parameters: `"product:{id}"`. For `stale` seconds more the old answer is served while there is a
    new one made. A 404 that the route declares is kept for `missing_ttl`: whatever creates the thing has to invalidate
    one of the tags. `max_age` is how many seconds clients may keep an answer without asking again; they hear of no
    invalidation.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _MARK, Rule(ttl, stale, tuple(tags), missing_ttl))
        cache_control = b"public, max-age=%d" % max_age if max_age else b"public, no-cache"
        endpoint.cache_control = cache_control  # type: ignore[attr-defined]
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


NOT_ASKED = Asked("", [], Rule(0.0, 0.0, (), 0.0))
"""Of a decorated route, but nothing that the cache may be asked for."""


class CachedRoutes:
    """The decorated routes of an app. Whatever they do not declare is not asked of the cache."""

    def __init__(self) -> None:
        self._by_path: dict[str, _Route] = {}
        self._by_pattern: list[_Route] = []
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._find)

    def add_all_of(self, app: FastAPI) -> None:
        for route in iter_route_contexts(app.routes):
            rule = getattr(route.endpoint, _MARK, None)
            if rule is None or route.path is None:
                continue
            if 404 not in route.responses:
                rule = replace(rule, missing_ttl=0.0)
            cached = _Route(route.path, route.path_regex, frozenset(_declared(route.dependant)), rule)
            if "{" in route.path:
                self._by_pattern.append(cached)
            else:
                self._by_path[route.path] = cached

    def find(self, scope: Scope) -> Asked | None:
        path, query = scope["path"], scope["query_string"]
        find = self._remembered if len(path) + len(query) < _SHORT else self._find  # long ones may be somebody's junk
        return find(path, query)

    def _find(self, path: str, query_string: bytes) -> Asked | None:
        route, parameters = self._by_path.get(path), {}
        if route is None:
            for candidate in self._by_pattern:
                if match := candidate.regex.match(path):
                    route, parameters = candidate, match.groupdict()
                    break
            else:
                return None
        query = _canonical(query_string, route.query)
        if query is None or not all(map(_is_canonical, parameters.values())):
            return NOT_ASKED
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
