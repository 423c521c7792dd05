"""The stores: the memory of this process, Redis for all processes, and Redis with memory in front of it."""

from collections.abc import Hashable, Iterable, Sequence
from time import time

from cachetools import LRUCache, TLRUCache

from plinth.cache.bus import EPOCH, GENERATION_SECONDS, InvalidationBus
from plinth.cache.generations import Tokens, new_token
from plinth.cache.store import Entry, Lookup, pack, unpack

_OVERHEAD_BYTES = 500
"""Approximate size of an entry in memory beside its value."""
_NAMES_PER_ENTRY = 4
_NO_CLAIM = ""
# Returns the tokens that the names have; a name without one gets the given one. NX: another process may be quicker.
_CREATE_MISSING = """
local current = {}
for place, key in ipairs(KEYS) do
    current[place] = redis.call('SET', key, ARGV[1 + place], 'NX', 'GET', 'EX', ARGV[1]) or ARGV[1 + place]
end
return current
"""
# Deletes a claim only for its holder: it may have expired, and another process may hold the key now.
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class Memory:
    """An LRU bounded by entries and by bytes. Expired entries are removed first."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        minimum = max_bytes // max_entries  # a smaller entry counts as this many bytes, which bounds the number as well

        def size(entry: Entry) -> int:
            return max(minimum, len(entry.value) + _OVERHEAD_BYTES)

        self._entries: TLRUCache[str, Entry] = TLRUCache(
            max_bytes, ttu=lambda _key, entry, _now: entry.expires_at, timer=time, getsizeof=size
        )
        self.max_names = _NAMES_PER_ENTRY * max_entries

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        try:
            self._entries[key] = entry
        except ValueError:  # larger than the whole memory
            self._entries.pop(key, None)


class MemoryStore:
    """The store of a process without Redis. It receives no invalidations from other processes."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        # An evicted name gets another token when it is used next, so its entries are no longer served.
        self._tokens: LRUCache[str, str] = LRUCache(memory.max_names)

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        entry = self._memory.get(key)
        return entry if entry and self._are_current(entry.tokens, names) else None

    def version(self, names: Sequence[str]) -> Hashable:
        return tuple(self._token(name) for name in names)

    async def read(self, key: str, names: Sequence[str]) -> Lookup:
        return Lookup(self.peek(key, names), {name: self._token(name) for name in names})

    async def write(self, key: str, entry: Entry) -> None:
        if self._are_current(entry.tokens, entry.tokens):
            self._memory.put(key, entry)

    async def invalidate(self, names: Sequence[str]) -> None:
        for name in names:
            self._tokens[name] = new_token()

    async def claim(self, key: str, tokens: Tokens | None, seconds: float) -> str | None:
        return key  # no other process shares this store

    async def release(self, claim: str) -> None:
        pass

    def last_invalidation_at(self) -> float:
        return 0.0

    def _are_current(self, tokens: Tokens, names: Iterable[str]) -> bool:
        return tokens == {name: self._tokens.get(name) for name in names}

    def _token(self, name: str) -> str:
        token = self._tokens.get(name)
        if token is None:
            token = self._tokens[name] = new_token()
        return token


class RedisStore:
    """A store for all processes. A lookup and an invalidation take one round trip each."""

    def __init__(self, bus: InvalidationBus) -> None:
        self._bus = bus

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        return None

    def version(self, names: Sequence[str]) -> Hashable:
        return self._bus.generations.last_change(_with_epoch(names))

    async def read(self, key: str, names: Sequence[str]) -> Lookup:
        sent_at_change = self._bus.generations.change_count
        all_names = _with_epoch(names)
        keys = [self._bus.generation_key(name) for name in all_names]
        reply = await self._bus.execute("MGET", self._key("entry", key), *keys)
        if reply is None:
            return Lookup(None, None)
        packed, *found = reply
        current = await self._create_missing(keys) if None in found else found
        if current is None or not self._bus.trusted:  # the connection was lost meanwhile
            return Lookup(None, None)
        tokens = {name: token.decode("latin-1") for name, token in zip(all_names, current, strict=True)}
        self._bus.generations.observe(tokens, sent_at_change)
        entry = unpack(packed) if packed else None
        return Lookup(entry if entry and entry.tokens == tokens else None, tokens)

    async def write(self, key: str, entry: Entry) -> None:
        milliseconds = int((entry.expires_at - time()) * 1000)
        if milliseconds > 0 and not self._bus.generations.are_outdated(entry.tokens):
            await self._bus.execute("SET", self._key("entry", key), pack(entry), "PX", milliseconds)

    async def invalidate(self, names: Sequence[str]) -> None:
        await self._bus.invalidate(_with_epoch(names)[1:])

    async def claim(self, key: str, tokens: Tokens | None, seconds: float) -> str | None:
        if tokens is None:
            return _NO_CLAIM  # Redis is unavailable, so each process loads for itself
        place = self._key("claim", ".".join([*tokens.values(), key]))
        holder_token, milliseconds = new_token(), int(seconds * 1000)
        holder = await self._bus.execute("SET", place, holder_token, "NX", "GET", "PX", milliseconds)
        return f"{holder_token} {place}" if holder is None else None

    async def release(self, claim: str) -> None:
        holder_token, _, place = claim.partition(" ")
        if place:  # if this fails, the claim expires
            await self._bus.execute("EVAL", _RELEASE, 1, place, holder_token)

    def last_invalidation_at(self) -> float:
        return self._bus.generations.changed_at if self._bus.trusted else time()

    def _key(self, kind: str, key: str) -> str:
        return f"{self._bus.namespace}:{kind}:{key}"

    async def _create_missing(self, keys: list[str]) -> list[bytes] | None:
        tokens = [new_token() for _ in keys]
        arguments = len(keys), *keys, GENERATION_SECONDS, *tokens
        current: list[bytes] | None = await self._bus.execute("EVAL", _CREATE_MISSING, *arguments)
        return current


class TwoLevelStore(RedisStore):
    """Redis with memory in front of it. A hit in memory needs no round trip, since the bus delivers invalidations."""

    def __init__(self, memory: Memory, bus: InvalidationBus) -> None:
        super().__init__(bus)
        self._memory = memory
        # The entries that were found valid, for which names, at which change: still valid until the next change.
        self._valid: dict[str, tuple[Entry, Sequence[str], int]] = {}

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        entry = self._memory.get(key)
        if entry is None or not self._bus.trusted:
            return None
        generations = self._bus.generations
        valid = entry, names, generations.change_count
        if self._valid.get(key) != valid:
            if entry.tokens != generations.get(_with_epoch(names)):
                return None
            if len(self._valid) >= self._memory.max_names:
                self._valid.clear()
            self._valid[key] = valid
        return entry

    async def read(self, key: str, names: Sequence[str]) -> Lookup:
        found = await super().read(key, names)
        if found.entry:
            self._memory.put(key, found.entry)
        return found

    async def write(self, key: str, entry: Entry) -> None:
        self._memory.put(key, entry)
        await super().write(key, entry)


def _with_epoch(names: Sequence[str]) -> list[str]:
    """The names, prefixed so that none is equal to the epoch's, and the epoch."""
    return [EPOCH, *[f"name:{name}" for name in names]]
