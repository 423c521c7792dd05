"""Read-through caching: a value is loaded once, by one process for all, and again after each invalidation."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import orjson
from pydantic import TypeAdapter

from plinth.cache.generations import newest
from plinth.cache.store import Entry, Lookup, Store
from plinth.cache.tags import Tag, names_of
from plinth.database.replica import must_see

log = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")

CLAIM_SECONDS = 5.0
"""How long other processes wait for the one that loads a key."""
POLL_SECONDS = 0.02
JITTER = 0.1


class Loaded(NamedTuple):
    value: bytes
    ttl: float
    """Seconds; a value with 0 is not stored."""


Load: TypeAlias = Callable[[], Awaitable[Loaded]]


@dataclass(frozen=True, slots=True)
class _Flight:
    """A load in progress, joined by every caller until the next invalidation."""

    task: "asyncio.Task[bytes]"
    version: Hashable


class Cache:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()

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

        async def dump() -> Loaded:
            value = await load()
            return Loaded(adapter.dump_json(value), missing_ttl if value is None else ttl)

        value = await self.fetch(f"{version}:{key}", (key, *names_of(tags)), dump, adapter.validate_json)
        return cast(ValueT, value)

    async def fetch(self, key: str, names: Sequence[str], load: Load, parse: Callable[[bytes], ValueT]) -> ValueT:
        """As `remember`, for bytes. A stored value for which `parse` raises ValueError is loaded again."""
        hit = _parsed(self._store.peek(key, names), parse)
        if hit is not None:
            return hit[1]
        return parse(await asyncio.shield(self._flight(key, names, load, parse)))

    async def invalidate(self, *names: Tag | str) -> None:
        """After this returns, nothing is served that was loaded before the call with these tags, or under these keys.

        Raises TypeError for a tag that lacks a value.
        """
        await self._store.invalidate([name if isinstance(name, str) else name.name for name in names])

    def last_invalidation_at(self) -> float:
        """Unix time in seconds at which an invalidation was last received; now, while none can be received."""
        return self._store.last_invalidation_at()

    async def close(self) -> None:
        """Cancel the loads in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _flight(
        self, key: str, names: Sequence[str], load: Load, parse: Callable[[bytes], object]
    ) -> "asyncio.Task[bytes]":
        """Single-flight per process. A load that began before an invalidation is not joined after it."""
        version = self._store.version(names)
        flight = self._flights.get(key)
        if flight is None or flight.version != version:
            task = self._start(self._read_or_load(key, names, load, parse))
            self._flights[key] = flight = _Flight(task, version)
            task.add_done_callback(lambda _: self._flights.pop(key) if self._flights.get(key) is flight else None)
        return flight.task

    def _start(self, work: Coroutine[Any, Any, bytes]) -> "asyncio.Task[bytes]":
        """Run a load in a task of its own, so that a cancelled caller does not cancel it for the others."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Mark the exception as retrieved: callers receive it, and asyncio need not log it where all were cancelled.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _read_or_load(
        self, key: str, names: Sequence[str], load: Load, parse: Callable[[bytes], object]
    ) -> bytes:
        found = await self._store.read(key, names)
        hit = _parsed(found.entry, parse)
        return await self._load(key, names, found, load) if hit is None else hit[0]

    async def _load(self, key: str, names: Sequence[str], found: Lookup, load: Load) -> bytes:
        """Single-flight across processes: one claims the key and loads, the others poll for what it stores.

        `found.entry` is the unusable entry that is being replaced, if there is one.
        """
        unusable, give_up_at = found.entry, time() + CLAIM_SECONDS
        while (claim := await self._store.claim(key, found.tokens, CLAIM_SECONDS)) is None and time() < give_up_at:
            await asyncio.sleep(POLL_SECONDS)
            found = await self._store.read(key, names)
            if found.entry and found.entry != unusable:
                return found.entry.value
        try:
            # Another process may have stored the value and released its claim between our read and our claim.
            found = await self._store.read(key, names)
            if found.entry and found.entry != unusable:
                return found.entry.value
            # A value read from a lagging replica would be stored as current under generations from after the write.
            must_see.set(newest(found.tokens) if found.tokens else None)
            loaded = await load()
            if loaded.ttl > 0 and found.tokens is not None:
                # Jitter: values that were loaded together do not all expire together.
                expires_at = time() + loaded.ttl * random.uniform(1 - JITTER, 1)
                await self._store.write(key, Entry(loaded.value, found.tokens, expires_at))
            return loaded.value
        finally:
            if claim is not None:
                await self._store.release(claim)


def _parsed(entry: Entry | None, parse: Callable[[bytes], ValueT]) -> tuple[bytes, ValueT] | None:
    """The stored bytes and their value; None for an entry that has expired or cannot be parsed."""
    if entry is None or entry.expires_at <= time():
        return None
    try:
        return entry.value, parse(entry.value)
    except ValueError:
        log.warning("A cached value cannot be parsed; it is loaded again")
        return None


@lru_cache(maxsize=1000)
def _schema(schema: Any) -> tuple[TypeAdapter[Any], str]:
    """The adapter of a type, and a hash of its JSON schema."""
    adapter = TypeAdapter(schema)
    described = orjson.dumps(adapter.json_schema(mode="serialization"), option=orjson.OPT_SORT_KEYS)
    return adapter, hashlib.sha256(described).hexdigest()[:8]
