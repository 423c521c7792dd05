"""The stores: this process's memory, Redis for all processes, and Redis with memory before it."""

from collections.abc import Hashable, Iterable, Sequence
from time import time

from cachetools import LRUCache, TLRUCache

from plinth.cache.link import EPOCH, GENERATION_SECONDS, Link
from plinth.cache.store import Entry, Found, Generations, new_generation, pack, unpack

_OVERHEAD_BYTES = 500  # of an entry in memory, its key and its place, about
_NAMES_PER_ENTRY = 4
_NO_CLAIM = ""
_MAKE = """
local made = {}
for place, key in ipairs(KEYS) do
    made[place] = redis.call('SET', key, ARGV[1 + place], 'NX', 'GET', 'EX', ARGV[1]) or ARGV[1 + place]
end
return made
"""
# Only who holds the claim may give it back: it may have expired, and be somebody else's.
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


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
    """In this process alone: the only level where there is no Redis."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        # A name that is forgotten gets another generation, and its entries are lost.
        self._generations: LRUCache[str, str] = LRUCache(memory.max_names)

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        entry = self._memory.get(key)
        return entry if entry and self._are_of_now(entry.generations, names) else None

    def version(self, names: Sequence[str]) -> Hashable:
        return tuple(self._generation(name) for name in names)

    async def read(self, key: str, names: Sequence[str]) -> Found:
        return Found(self.peek(key, names), {name: self._generation(name) for name in names})

    async def write(self, key: str, entry: Entry) -> None:
        if self._are_of_now(entry.generations, entry.generations):
            self._memory.put(key, entry)

    async def invalidate(self, names: Sequence[str]) -> None:
        for name in names:
            self._generations[name] = new_generation()

    async def claim(self, key: str, generations: Generations | None, seconds: float) -> str | None:
        return key  # nobody else is here

    async def release(self, claim: str) -> None:
        pass

    def heard_at(self) -> float:
        return 0.0

    def _are_of_now(self, generations: Generations, names: Iterable[str]) -> bool:
        return generations == {name: self._generations.get(name) for name in names}

    def _generation(self, name: str) -> str:
        generation = self._generations.get(name)
        if generation is None:
            generation = self._generations[name] = new_generation()
        return generation


class RedisStore:
    """For all processes: one round trip for a read, one for an invalidation."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        return None

    def version(self, names: Sequence[str]) -> Hashable:
        return self._link.names.last_change(_with_epoch(names))

    async def read(self, key: str, names: Sequence[str]) -> Found:
        asked_at = self._link.names.changes
        wanted = _with_epoch(names)
        keys = [self._link.generation_key(name) for name in wanted]
        answer = await self._link.ask("MGET", self._key("entry", key), *keys)
        if answer is None:
            return Found(None, None)
        packed, *tokens = answer
        made = await self._make(keys) if None in tokens else tokens
        if made is None or not self._link.trusted:  # lost while we asked
            return Found(None, None)
        generations = {name: token.decode("latin-1") for name, token in zip(wanted, made, strict=True)}
        self._link.names.learn(generations, asked_at)
        entry = unpack(packed) if packed else None
        return Found(entry if entry and entry.generations == generations else None, generations)

    async def write(self, key: str, entry: Entry) -> None:
        milliseconds = int((entry.kept_until - time()) * 1000)
        if milliseconds > 0 and not self._link.names.are_past(entry.generations):
            await self._link.ask("SET", self._key("entry", key), pack(entry), "PX", milliseconds)

    async def invalidate(self, names: Sequence[str]) -> None:
        await self._link.invalidate(_with_epoch(names)[1:])

    async def claim(self, key: str, generations: Generations | None, seconds: float) -> str | None:
        if generations is None:
            return _NO_CLAIM  # and nobody to wait for
        place = self._key("claim", ".".join([*generations.values(), key]))
        token, milliseconds = new_generation(), int(seconds * 1000)
        holder = await self._link.ask("SET", place, token, "NX", "GET", "PX", milliseconds)
        return f"{token} {place}" if holder is None else None

    async def release(self, claim: str) -> None:
        token, _, place = claim.partition(" ")
        if place:  # if that fails, its time ends it
            await self._link.ask("EVAL", _RELEASE, 1, place, token)

    def heard_at(self) -> float:
        return self._link.names.changed_at if self._link.trusted else time()

    def _key(self, kind: str, key: str) -> str:
        return f"{self._link.namespace}:{kind}:{key}"

    async def _make(self, keys: list[str]) -> list[bytes] | None:
        """The generations, new ones for the names that have none."""
        tokens = [new_generation() for _ in keys]
        made: list[bytes] | None = await self._link.ask("EVAL", _MAKE, len(keys), *keys, GENERATION_SECONDS, *tokens)
        return made


class TwoLevelStore(RedisStore):
    """A hit in memory asks nobody: every process tells the others what it invalidates, and hears what they do."""

    def __init__(self, memory: Memory, link: Link) -> None:
        super().__init__(link)
        self._memory = memory
        # Whatever was found valid is, for the same names, until something changes.
        self._valid: dict[str, tuple[Entry, Sequence[str], int]] = {}

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        entry = self._memory.get(key)
        if entry is None or not self._link.trusted:
            return None
        book = self._link.names
        valid = entry, names, book.changes
        if self._valid.get(key) != valid:
            if entry.generations != book.generations(_with_epoch(names)):
                return None
            if len(self._valid) >= self._memory.max_names:
                self._valid.clear()
            self._valid[key] = valid
        return entry

    async def read(self, key: str, names: Sequence[str]) -> Found:
        found = await super().read(key, names)
        if found.entry:
            self._memory.put(key, found.entry)
        return found

    async def write(self, key: str, entry: Entry) -> None:
        self._memory.put(key, entry)
        await super().write(key, entry)


def _with_epoch(names: Sequence[str]) -> list[str]:
    """Prefixed, so that nobody's name is the epoch's."""
    return [EPOCH, *[f"name:{name}" for name in names]]
