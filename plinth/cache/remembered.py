"""`@remembered`, by which a service says that what a method returns is kept."""

import inspect
from collections.abc import Callable, Coroutine, Iterable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, get_type_hints
from urllib.parse import quote

from plinth.cache.cache import Cache

ValueT = TypeVar("ValueT")
Arguments = ParamSpec("Arguments")


class _HasCache(Protocol):
    cache: Cache


_HasCacheT = TypeVar("_HasCacheT", bound=_HasCache)
_Method: TypeAlias = Callable[Concatenate[_HasCacheT, Arguments], Coroutine[Any, Any, ValueT]]


def remembered(
    key: str, ttl: float, *, tags: Iterable[str] = (), stale: float = 0.0, missing_ttl: float = 0.0
) -> Callable[[_Method[_HasCacheT, Arguments, ValueT]], _Method[_HasCacheT, Arguments, ValueT]]:
    """`Cache.remember` for a method of an object that has a `cache`.

    Key and tags are formatted with the arguments: `@remembered("product:{id}", ttl=60, tags=["products"])`. The schema
    is what the method says that it returns.
    """
    patterns = (key, *tags)

    def decorate(method: _Method[_HasCacheT, Arguments, ValueT]) -> _Method[_HasCacheT, Arguments, ValueT]:
        signature, schema = inspect.signature(method), get_type_hints(method)["return"]

        @wraps(method)
        async def remembering(self: _HasCacheT, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> ValueT:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            # Quoted, so that no argument can look like two.
            quoted = {name: quote(str(value), "") for name, value in bound.arguments.items() if name != "self"}
            key, *tags = (pattern.format(**quoted) for pattern in patterns)
            load = partial(method, self, *args, **kwargs)
            more = {"stale": stale, "missing_ttl": missing_ttl}
            return await self.cache.remember(key, ttl, load, schema=schema, tags=tags, **more)

        return remembering

    return decorate
