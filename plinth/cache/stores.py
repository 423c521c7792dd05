"""Where cached values are kept: in the memory of this process, and in Redis for all processes."""

from time import time
from typing import Any

from cachetools import LRUCache

from plinth.cache import scripts
from plinth.cache.bus import InvalidationBus
from plinth.cache.entries import Entry, Lookup, Names, pack, unpack
from plinth.cache.generations import Generations, new_token

_BYTES_PER_ENTRY = 1500
_BYTES_PER_TOKEN = 250


class Memory:
    """The memory of one process for entries, for the names that they depend on, and for the URLs that lead to them.

    Each has a share of `max_bytes`, in which the least recently used makes room for the next.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        share = max_bytes * 3 // 4
        least = share // max_entries  # a smaller entry counts as this many bytes, which bounds the number as well
        self.entries: LRUCache[str, Entry] = LRUCache(share, getsizeof=lambda entry: max(least, entry.bytes))
        self.urls: LRUCache[Any, Any] = LRUCache(max_bytes // 8, getsizeof=lambda match: match.bytes)
        self.max_name_bytes = max_bytes // 8


class MemoryStore:
    """The store of a process without Redis. It receives no invalidations from other processes."""

    def __init__(self, memory: Memory, generations: Generations | None = None, *, keeps: bool = True) -> None:
        """Without `keeps`, nothing is stored."""
        self.memory = memory
        self.generations = generations or Generations(memory.max_name_bytes)
        self._keeps = keeps

    @property
    def trusted(self) -> bool:
        return self._keeps

    def peek(self, key: str, names: Names) -> Entry | None:
        """The entry in memory, if the generations of the names are still those that it carries."""
        entry, now = self.memory.entries.get(key), time()
        # A clock that was set back would let the entry live for longer.
        if entry is None or not self.trusted or not entry.current_at <= now < entry.expires_at:
            return None
        change = self.generations.change_count
        if entry.valid_at_change != change or entry.names != names:
            if entry.names != names or entry.tokens != self.generations.get(names):
                return None
            entry.valid_at_change = change
        entry.current_at = now
        return entry

    def stale(self, key: str, names: Names, seconds: float) -> Entry | None:
        """The entry in memory, if it ceased to be current less than `seconds` ago.

        When it was invalidated is not known. It was not yet when it was found to be current for the last time.
        """
        entry = self.memory.entries.get(key)
        if entry is None or entry.names != names:
            return None
        is_valid = self.trusted and entry.tokens == self.generations.get(names)
        ceased_at = entry.expires_at if is_valid else min(entry.expires_at, entry.current_at)
        return entry if time() < ceased_at + seconds else None

    async def read(self, key: str, names: Names, load_seconds: float) -> Lookup:
        """As `peek`, from Redis, with the generations for a load of so many seconds. Never raises."""
        self.generations.create(names)
        return Lookup(None, 0.0, self.generations.get(names))

    def write(self, key: str, entry: Entry, packed: bytes) -> None:
        """Keep an entry, unless one of its generations has changed. Does not wait for Redis."""
        self.keep(key, entry)

    def keep(self, key: str, entry: Entry) -> None:
        """As `write`, in memory alone."""
        entry.bytes += _BYTES_PER_ENTRY + 2 * len(key) + sum(_BYTES_PER_TOKEN + 2 * len(name) for name in entry.names)
        entry.current_at = time()
        if not self._keeps or entry.tokens != self.generations.get(entry.names):
            return
        try:
            self.memory.entries[key] = entry
        except ValueError:  # larger than the whole memory
            self.memory.entries.pop(key, None)

    async def invalidate(self, names: Names) -> None:
        """After this returns, no value that was loaded before the call is served."""
        self.generations.forget(names)

    def version(self, names: Names) -> int:
        """A number that grows with each invalidation of one of the names that this process has received."""
        return self.generations.last_change(names)

    def last_invalidation_at(self) -> float:
        """Unix time in seconds at which an invalidation was last received; now, while none can be received."""
        return 0.0


class SharedStore(MemoryStore):
    """Redis with memory in front of it. A hit in memory needs no round trip, since the bus delivers invalidations."""

    def __init__(self, memory: Memory, bus: InvalidationBus) -> None:
        super().__init__(memory, bus.generations)
        self._bus = bus

    @property
    def trusted(self) -> bool:
        return self._bus.trusted

    async def read(self, key: str, names: Names, load_seconds: float) -> Lookup:
        self._bus.caches = True
        sent_at_change = self.generations.change_count
        keys = self._keys(key, names)
        arguments = new_token(), self._bus.run, int(load_seconds * 1000)
        reply = await self._bus.execute("EVAL", scripts.READ, len(keys), *keys, *arguments)
        if reply is None or not self._bus.trusted:  # the connection was lost meanwhile
            return Lookup(None, 0.0, None)
        packed, milliseconds, *rest = reply
        tokens = tuple([token.decode("latin-1") for token in rest])
        self.generations.observe(names, tokens, sent_at_change)
        found = unpack(packed) if packed else None
        if found is None or found[0] != [*names] or found[1] != [*tokens]:
            return Lookup(None, 0.0, tokens)
        # Redis measures what is left without a wall clock. That of the process that stored the entry may be wrong.
        return Lookup(found[3], min(found[2], time() + milliseconds / 1000), tokens)

    def write(self, key: str, entry: Entry, packed: bytes) -> None:
        super().write(key, entry, packed)
        milliseconds = int((entry.expires_at - time()) * 1000)
        if milliseconds > 0:
            keys = self._keys(key, entry.names)
            value = pack(entry, packed)
            self._bus.post("EVAL", scripts.STORE, len(keys), *keys, value, milliseconds, *entry.tokens)

    async def invalidate(self, names: Names) -> None:
        await self._bus.invalidate(names)

    def last_invalidation_at(self) -> float:
        return self.generations.changed_at if self._bus.trusted else time()

    def _keys(self, key: str, names: Names) -> list[str]:
        return [self._bus.keys.entry(key), *self._bus.keys.generations(names)]
