"""In this process alone: the fastest level, and the only one where there is no Redis."""

from collections.abc import Hashable, Sequence
from time import time

from cachetools import LRUCache, TLRUCache

from app.cache.store import Entry, Found, new_generation

_OVERHEAD_BYTES = 500  # of an entry, its key and its place, about
_NAMES_PER_ENTRY = 4


class Memory:
    """Holds at most so many entries and so many bytes, and lets go of what was used least lately."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        least = max_bytes // max_entries  # whatever takes less counts as that, which bounds the entries as well

        def size(entry: Entry) -> int:
            return max(least, len(entry.value) + _OVERHEAD_BYTES)

        self._entries: TLRUCache[str, Entry] = TLRUCache(
            max_bytes, ttu=lambda _key, entry, _now: entry.kept_until, timer=time, getsizeof=size
        )
        self.max_names = _NAMES_PER_ENTRY * max_entries

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        try:
            self._entries[key] = entry
        except ValueError:  # larger than all that is allowed
            self._entries.pop(key, None)


class MemoryStore:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        # A name that is forgotten gets another generation, and its entries are lost.
        self._generations: LRUCache[str, str] = LRUCache(memory.max_names)

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        entry = self._memory.get(key)
        if entry is None or entry.generations != {name: self._generations.get(name) for name in names}:
            return None
        return entry

    def version(self, names: Sequence[str]) -> Hashable:
        return tuple(self._generation(name) for name in names)

    async def read(self, key: str, names: Sequence[str]) -> Found:
        return Found(self.peek(key, names), {name: self._generation(name) for name in names})

    async def write(self, key: str, entry: Entry) -> None:
        self._memory.put(key, entry)

    async def invalidate(self, names: Sequence[str]) -> None:
        for name in names:
            self._generations[name] = new_generation()

    async def claim(self, key: str, seconds: float) -> str | None:
        return key  # nobody else is here

    async def release(self, key: str, token: str) -> None:
        pass

    def heard_at(self) -> float:
        return 0.0

    def _generation(self, name: str) -> str:
        generation = self._generations.get(name)
        if generation is None:
            generation = self._generations[name] = new_generation()
        return generation
