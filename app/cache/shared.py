"""In Redis, for all processes; and with this process's memory before it."""

import asyncio
from collections.abc import Awaitable, Hashable, Sequence
from time import time
from typing import Any, cast

from redis.exceptions import ResponseError

from app.cache.link import EPOCH, FAILURES, GENERATION_SECONDS, Link
from app.cache.memory import Memory
from app.cache.store import Entry, Found, new_generation, pack, unpack

# Only who holds the claim may give it back: it may have expired, and be somebody else's.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"


class RedisStore:
    """One round trip for a read, one for an invalidation."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._redis = link.redis

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        return None

    def version(self, names: Sequence[str]) -> Hashable:
        return self._link.names.last_change((EPOCH, *names))

    async def read(self, key: str, names: Sequence[str]) -> Found:
        if not self._link.trusted:
            return Found(None, None)
        asked_at = self._link.names.changes
        wanted = [EPOCH, *names]
        keys = [self._link.generation_key(name) for name in wanted]
        answer: list[bytes | None] | None = await self._ask(self._redis.mget(self._key("entry", key), *keys))
        if answer is None:
            return Found(None, None)
        packed, *tokens = answer
        made = await self._ask(self._make(keys)) if None in tokens else cast(list[bytes], tokens)
        if made is None or not self._link.trusted:  # lost while we asked
            return Found(None, None)
        generations = {name: token.decode("latin-1") for name, token in zip(wanted, made, strict=True)}
        self._link.names.learn(generations, asked_at)
        entry = unpack(packed) if packed else None
        return Found(entry if entry and entry.generations == generations else None, generations)

    async def write(self, key: str, entry: Entry) -> None:
        milliseconds = int((entry.kept_until - time()) * 1000)
        if milliseconds > 0 and self._link.trusted:
            await self._ask(self._redis.set(self._key("entry", key), pack(entry), px=milliseconds))

    async def invalidate(self, names: Sequence[str]) -> None:
        generations = {name: new_generation() for name in names}
        self._link.names.tell(generations)
        if not self._link.reachable:
            self._link.distrust()
            return
        try:
            await self._link.announce(generations)
        except FAILURES as error:
            self._link.fail(error)

    async def claim(self, key: str, seconds: float) -> str | None:
        token = new_generation()
        if not self._link.trusted:
            return token
        milliseconds = int(seconds * 1000)
        holder = await self._ask(self._redis.set(self._key("claim", key), token, nx=True, px=milliseconds, get=True))
        return token if holder is None else None

    async def release(self, key: str, token: str) -> None:
        if self._link.trusted:
            await self._ask(self._redis.eval(_RELEASE, 1, self._key("claim", key), token))

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

    async def _ask(self, command: Awaitable[Any]) -> Any:
        """Redis's answer; None where there is none in time."""
        try:
            async with asyncio.timeout(self._link.timeout_seconds):
                return await command
        except ResponseError:  # it is there, and refuses: out of memory, say
            self._link.failures += 1
        except FAILURES as error:
            self._link.fail(error)
        return None


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
