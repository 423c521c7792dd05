"""In Redis, for all processes; and with this process's memory before it."""

from collections.abc import Hashable, Sequence
from time import time
from typing import cast

from app.cache.link import EPOCH, GENERATION_SECONDS, Link
from app.cache.memory import Memory
from app.cache.store import Entry, Found, new_generation, pack, unpack

_NO_CLAIM = "none"
# Only who holds the claim may give it back: it may have expired, and be somebody else's.
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class RedisStore:
    """One round trip for a read, one for an invalidation."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._redis = link.redis
        self._unreleased: dict[str, str] = {}
        """Claims that could not be given back: their places and tokens."""

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        return None

    def version(self, names: Sequence[str]) -> Hashable:
        return self._link.names.last_change((EPOCH, *names))

    async def read(self, key: str, names: Sequence[str]) -> Found:
        while self._unreleased and self._link.trusted:
            await self._give_back(*self._unreleased.popitem())
        asked_at = self._link.names.changes
        wanted = [EPOCH, *names]
        keys = [self._link.generation_key(name) for name in wanted]
        answer = await self._link.ask(lambda: self._redis.mget(self._key("entry", key), *keys))
        if answer is None:
            return Found(None, None)
        packed, *tokens = cast(list[bytes | None], answer)
        made = await self._link.ask(lambda: self._make(keys)) if None in tokens else cast(list[bytes], tokens)
        if made is None or not self._link.trusted:  # lost while we asked
            return Found(None, None)
        generations = {name: token.decode("latin-1") for name, token in zip(wanted, made, strict=True)}
        self._link.names.learn(generations, asked_at)
        entry = unpack(packed) if packed else None
        return Found(entry if entry and entry.generations == generations else None, generations)

    async def write(self, key: str, entry: Entry) -> None:
        milliseconds = int((entry.kept_until - time()) * 1000)
        if milliseconds > 0:
            await self._link.ask(lambda: self._redis.set(self._key("entry", key), pack(entry), px=milliseconds))

    async def invalidate(self, names: Sequence[str]) -> None:
        await self._link.invalidate(names)

    async def claim(self, key: str, seconds: float) -> str | None:
        epoch = self._link.names.generations([EPOCH])
        if epoch is None:
            return _NO_CLAIM  # and nothing to wait for
        # With the epoch, so that a claim from before an outage, whose owner could not give it back, holds nobody up.
        place = self._key("claim", f"{epoch[EPOCH]}:{key}")
        token, milliseconds = new_generation(), int(seconds * 1000)
        holder = await self._link.ask(lambda: self._redis.set(place, token, nx=True, px=milliseconds, get=True))
        return f"{token} {place}" if holder is None else None

    async def release(self, key: str, token: str) -> None:
        token, _, place = token.partition(" ")
        if place and await self._give_back(place, token) is None:
            self._unreleased[place] = token

    def heard_at(self) -> float:
        return self._link.names.changed_at if self._link.trusted else time()

    async def _give_back(self, place: str, token: str) -> object:
        return await self._link.ask(lambda: self._redis.eval(_RELEASE, 1, place, token))

    def _key(self, kind: str, key: str) -> str:
        return f"{self._link.namespace}:{kind}:{key}"

    async def _make(self, keys: list[str]) -> list[bytes]:
        """The generations, new ones for the names that have none."""
        pipeline = self._redis.pipeline(transaction=False)
        tokens = [new_generation() for _ in keys]
        for key, token in zip(keys, tokens, strict=True):
            pipeline.set(key, token, nx=True, get=True, ex=GENERATION_SECONDS)
        found = await pipeline.execute()
        return [before or token.encode() for before, token in zip(found, tokens, strict=True)]


class TwoLevelStore(RedisStore):
    """A hit in memory asks nobody: every process tells the others what it invalidates, and hears what they do."""

    def __init__(self, memory: Memory, link: Link) -> None:
        super().__init__(link)
        self._memory = memory

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        entry = self._memory.get(key)
        if entry is None or not self._link.trusted:
            return None
        return entry if entry.generations == self._link.names.generations((EPOCH, *names)) else None

    async def read(self, key: str, names: Sequence[str]) -> Found:
        found = await super().read(key, names)
        if found.entry:
            self._memory.put(key, found.entry)
        return found

    async def write(self, key: str, entry: Entry) -> None:
        self._memory.put(key, entry)
        await super().write(key, entry)
