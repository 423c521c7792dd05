"""Read-through caching: a process loads a value once for all who wait for it, and again after each invalidation."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import Any, TypeVar, cast

import orjson
from pydantic import TypeAdapter

from plinth.cache.entries import Caching, Deliver, Entry, Load, Loaded, load_seconds
from plinth.cache.generations import newest
from plinth.cache.stores import MemoryStore
from plinth.cache.tags import Tag, names_of
from plinth.database.replica import must_see
from plinth.telemetry.counting import cache_requests

log = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")

JITTER = 0.1


@dataclass(slots=True)
class _Flight:
    """A load in progress, joined by every caller until the next invalidation, and cancelled with the last of them."""

    result: "asyncio.Future[Any]"
    version: int
    is_in_redis: bool = False
    task: "asyncio.Task[None] | None" = None
    waiting: int = 0


class Cache:
    def __init__(self, store: MemoryStore, stale_seconds: float = 0.0) -> None:
        self._store = store
        self._stale_seconds = stale_seconds
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.urls = store.memory.urls
        """Of the response cache: what it found out about a URL, so that a hit needs neither routing nor parsing."""

    async def remember(
        self,
        key: str,
        ttl: float,
        load: Callable[[], Awaitable[ValueT]],
        *,
        schema: Any,
        tags: Iterable[Tag] = (),
        missing_ttl: float = 0.0,
    ) -> ValueT:
        """Return the cached value of `key`, or what `load` returns, cached for `ttl` seconds.

        `schema` is the type of the value, as Pydantic understands it. It is part of the key, so that a release that
        changes the type does not read what an earlier one stored. The value is loaded again once `key` or one of `tags`
        is invalidated. None is cached for `missing_ttl` seconds. An exception of `load` is raised and not cached.
        """
        adapter, version = _schema(schema)

        async def dump(deliver: Deliver) -> None:
            value = await load()
            deliver(Loaded(adapter.dump_json(value), missing_ttl if value is None else ttl))

        def checked(packed: bytes) -> bytes:
            adapter.validate_json(packed)
            return packed

        caching = Caching(f"{version}:{key}", (key, *names_of(tags)), checked, load_seconds(ttl, missing_ttl))
        packed, level = self.peek(caching), "memory"
        if packed is None:
            packed, level = await self.fetch(caching, dump)
        cache_requests("value", level).inc()
        return cast(ValueT, adapter.validate_json(packed))  # for each caller an object of its own

    def peek(self, caching: Caching) -> Any:
        """What is kept in memory; None where that is nothing."""
        entry = self._store.peek(caching.key, caching.names)
        return entry.value if entry else None

    def stale(self, caching: Caching) -> Any:
        """What was kept in memory until less than `stale_seconds` ago, for a load that has failed; or None."""
        entry = self._store.stale(caching.key, caching.names, self._stale_seconds)
        return entry.value if entry else None

    async def fetch(self, caching: Caching, load: Load, context: Context | None = None) -> tuple[Any, str]:
        """What Redis has (`redis`), or what `load` returns (`miss`), as it is kept in memory, and which of the two.

        The load runs in the context.
        """
        version = self._store.version(caching.names)
        flight = self._flights.get(caching.key)
        if flight is None or flight.version != version:
            flight = self._start(caching, load, version, context)
        flight.waiting += 1
        try:
            value = await asyncio.shield(flight.result)
            return value, "redis" if flight.is_in_redis else "miss"
        finally:
            flight.waiting -= 1
            if flight.task and not flight.waiting and not flight.result.done():
                if self._flights.get(caching.key) is flight:
                    del self._flights[caching.key]  # who comes now must not join it
                flight.task.cancel()

    async def invalidate(self, *names: Tag | str) -> None:
        """After this returns, nothing is served that was loaded before the call with these tags, or under these keys.

        Raises TypeError for a tag that lacks a value.
        """
        await self._store.invalidate(tuple([name if isinstance(name, str) else name.name for name in names]))

    def last_invalidation_at(self) -> float:
        """Unix time in seconds at which an invalidation was last received; now, while none can be received."""
        return self._store.last_invalidation_at()

    async def close(self) -> None:
        """Cancel the loads in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, caching: Caching, load: Load, version: int, context: Context | None) -> _Flight:
        """Load in a task of its own: a cancelled caller does not cancel it for the others."""
        flight = _Flight(asyncio.get_running_loop().create_future(), version)
        self._flights[caching.key] = flight

        def end(result: "asyncio.Future[Any]") -> None:
            # Mark the exception as retrieved: callers receive it, and asyncio need not log it where all were cancelled.
            result.cancelled() or result.exception()
            if self._flights.get(caching.key) is flight:
                del self._flights[caching.key]

        flight.result.add_done_callback(end)
        flight.task = asyncio.create_task(self._fly(caching, load, flight), context=context)
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight

    async def _fly(self, caching: Caching, load: Load, flight: _Flight) -> None:
        result = flight.result
        try:
            await self._read_or_load(caching, load, flight)
        except asyncio.CancelledError:
            result.cancel()
            raise
        except Exception as error:
            if not result.done():
                result.set_exception(error)

    async def _read_or_load(self, caching: Caching, load: Load, flight: _Flight) -> None:
        key, names, result = caching.key, caching.names, flight.result
        found = await self._store.read(key, names, caching.load_seconds)
        if found.packed is not None and found.tokens is not None and found.expires_at > time():
            try:
                value = caching.parse(found.packed)
            except ValueError:
                log.warning("A cached value cannot be parsed; it is loaded again")
            else:
                self._store.keep(key, Entry(value, names, found.tokens, found.expires_at, _size(value, found.packed)))
                flight.is_in_redis = True
                result.set_result(value)
                return
        # A value read from a lagging replica would be stored as current under generations from after the write.
        must_see.set(newest(found.tokens) if found.tokens else None)

        def deliver(loaded: Loaded | Exception) -> None:
            if isinstance(loaded, Exception):
                result.set_exception(loaded)
                return
            packed, ttl, value = loaded
            value = caching.parse(packed) if value is None else value
            if ttl > 0 and found.tokens is not None:
                # Jitter: values that were loaded together do not all expire together.
                expires_at = time() + ttl * random.uniform(1 - JITTER, 1)
                self._store.write(key, Entry(value, names, found.tokens, expires_at, _size(value, packed)), packed)
            result.set_result(value)

        await load(deliver)


def _size(value: Any, packed: bytes) -> int:
    """The bytes that a value takes in memory, which for some kinds is more than as it is packed."""
    return int(getattr(value, "bytes", len(packed)))


@lru_cache(maxsize=1000)
def _schema(schema: Any) -> tuple[TypeAdapter[Any], str]:
    """The adapter of a type, and a hash of its JSON schema."""
    adapter = TypeAdapter(schema)
    described = orjson.dumps(adapter.json_schema(mode="serialization"), option=orjson.OPT_SORT_KEYS)
    return adapter, hashlib.sha256(described).hexdigest()[:8]
