"""What is asked often is loaded once: per process and across processes, and anew after every invalidation."""

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

from plinth.cache.store import Entry, Found, Store, newest
from plinth.database import must_see

log = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")

CLAIM_SECONDS = 5.0
"""A process that loads for longer is no longer waited for."""
POLL_SECONDS = 0.02
JITTER = 0.1


class Loaded(NamedTuple):
    value: bytes
    ttl: float
    """Seconds; 0 is not kept."""
    stale: float = 0.0
    """Seconds after that in which it is served while it is loaded anew."""


Load: TypeAlias = Callable[[], Awaitable[Loaded]]
Invalidate: TypeAlias = Callable[..., None]
"""Called with names: they are invalidated once the transaction is committed, and not if it is rolled back."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """A question that is under way, for all who ask it before the next invalidation."""

    task: "asyncio.Task[bytes]"
    version: Hashable


class Cache:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._flights: dict[str, _Flight] = {}
        self._refreshing: set[str] = set()
        self._tasks: set[asyncio.Task[bytes]] = set()

    async def remember(
        self,
        key: str,
        ttl: float,
        load: Callable[[], Awaitable[ValueT]],
        *,
        schema: Any,
        tags: Iterable[str] = (),
        stale: float = 0.0,
        missing_ttl: float = 0.0,
    ) -> ValueT:
        """What `load` returns, or returned in the last `ttl` seconds.

        `schema` is the type of the value, as Pydantic understands it; another schema never reads what this one wrote.
        It is loaded anew once `key` or one of `tags` is invalidated. For `stale` seconds after `ttl` the old value is
        served while it is loaded anew. None is kept for `missing_ttl`. An error of `load` is raised, and not kept.
        """
        adapter, version = _schema(schema)

        async def dump() -> Loaded:
            value = await load()
            return Loaded(adapter.dump_json(value), missing_ttl if value is None else ttl, stale)

        value = await self.fetch(f"{version}:{key}", (key, *tags), dump, adapter.validate_json)
        return cast(ValueT, value)

    async def fetch(self, key: str, names: Sequence[str], load: Load, read: Callable[[bytes], ValueT]) -> ValueT:
        """As `remember`, for bytes that `read` understands, or raises ValueError: then they are loaded anew."""
        kept = _kept(self._store.peek(key, names), read)
        if kept is None:
            return read(await asyncio.shield(self._flight(key, names, load, read)))
        entry, value = kept
        if entry.fresh_until <= time():
            self._refresh(key, names, entry, load)
        return value

    async def invalidate(self, *names: str) -> None:
        """Serve nothing more that was loaded before now under these keys, or with these tags."""
        await self._store.invalidate(names)

    def heard_at(self) -> float:
        """When another process last invalidated something, as far as was heard; now, while nothing is heard."""
        return self._store.heard_at()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _flight(
        self, key: str, names: Sequence[str], load: Load, read: Callable[[bytes], object]
    ) -> "asyncio.Task[bytes]":
        version = self._store.version(names)
        flight = self._flights.get(key)
        if flight is None or flight.version != version:
            task = self._start(self._find(key, names, load, read))
            self._flights[key] = flight = _Flight(task, version)
            task.add_done_callback(lambda _: self._flights.pop(key) if self._flights.get(key) is flight else None)
        return flight.task

    def _refresh(self, key: str, names: Sequence[str], stale: Entry, load: Load) -> None:
        if key not in self._refreshing:
            self._refreshing.add(key)
            task = self._start(self._load(key, names, Found(stale, stale.generations), load))
            task.add_done_callback(lambda _: self._refreshing.discard(key))
            task.add_done_callback(_tell_failure)

    def _start(self, work: Coroutine[Any, Any, bytes]) -> "asyncio.Task[bytes]":
        """A task of its own: a caller who leaves does not take along what the others wait for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Who waits is told; asyncio need not complain where nobody does.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _find(self, key: str, names: Sequence[str], load: Load, read: Callable[[bytes], object]) -> bytes:
        found = await self._store.read(key, names)
        kept = _kept(found.entry, read)
        if kept is None:
            return await self._load(key, names, found, load)
        entry, _ = kept
        if entry.fresh_until <= time():
            self._refresh(key, names, entry, load)
        return entry.value

    async def _load(self, key: str, names: Sequence[str], found: Found, load: Load) -> bytes:
        """In one process; the others wait for what it keeps. What was `found` does not do."""
        known, give_up_at = found.entry, time() + CLAIM_SECONDS
        while (claim := await self._store.claim(key, found.generations, CLAIM_SECONDS)) is None and time() < give_up_at:
            await asyncio.sleep(POLL_SECONDS)
            found = await self._store.read(key, names)
            if found.entry and found.entry != known:
                return found.entry.value
        try:
            found = await self._store.read(key, names)  # somebody may have been quicker
            if found.entry and found.entry != known:
                return found.entry.value
            # A replica that is behind would have it kept, out of date, under generations of after the write.
            must_see.set(newest(found.generations) if found.generations else None)
            loaded = await load()
            if loaded.ttl > 0 and found.generations is not None:
                # Not all that was loaded together expires together.
                fresh_until = time() + loaded.ttl * random.uniform(1 - JITTER, 1)
                entry = Entry(loaded.value, found.generations, fresh_until, fresh_until + loaded.stale)
                await self._store.write(key, entry)
            return loaded.value
        finally:
            if claim is not None:
                await self._store.release(claim)


def _kept(entry: Entry | None, read: Callable[[bytes], ValueT]) -> tuple[Entry, ValueT] | None:
    """With what it holds, unless its time is over or it cannot be read."""
    if entry is None or entry.kept_until <= time():
        return None
    try:
        return entry, read(entry.value)
    except ValueError:
        log.warning("What was kept cannot be read, and is loaded anew")
        return None


def _tell_failure(task: "asyncio.Task[bytes]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.warning("What is served stale could not be loaded anew: %r", error)


@lru_cache(maxsize=1000)
def _schema(schema: Any) -> tuple[TypeAdapter[Any], str]:
    """How its values are read and written, and what tells it from an earlier one of the same name."""
    adapter = TypeAdapter(schema)
    described = orjson.dumps(adapter.json_schema(mode="serialization"), option=orjson.OPT_SORT_KEYS)
    return adapter, hashlib.sha256(described).hexdigest()[:8]
