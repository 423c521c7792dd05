"""Rate limits: how many requests with the same key are accepted in each window of time.

Windows are aligned to the clock, and the number of the window is part of the key. So one command to Redis counts a
request exactly, across all workers, and what remains and when the next window begins follows without another one.
Without Redis each worker accepts its share. https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from time import time
from typing import Any

from cachetools import LRUCache
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import RedisError

from plinth.security.settings import Limit, LimitSettings

log = logging.getLogger(__name__)

LOCAL_KEYS = 20_000
"""Most keys that one limit counts in a process. Beyond, those that were not used for longest are forgotten."""
RETRY_SECONDS = 1.0
"""For so long Redis is not tried again after it has failed, so that not every request waits for its timeout."""
SKEW_SECONDS = 60
"""How much longer than its window a counter is kept: the clocks of hosts differ."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Quota:
    """What a limit has left for one key; `remaining` is negative for a request that is refused."""

    name: str
    limit: Limit
    remaining: int
    reset_seconds: int

    @property
    def fields(self) -> tuple[str, str]:
        """This quota in the fields `RateLimit` and `RateLimit-Policy`."""
        now = f'"{self.name}";r={max(0, self.remaining)};t={self.reset_seconds}'
        return now, f'"{self.name}";q={self.limit.amount};w={self.limit.seconds}'


class LocalLimit:
    """Counts in this process, which accepts its share: the limit divided by the number of workers, at least 1."""

    def __init__(self, name: str, limit: Limit, workers: int, clock: Clock = time, keys: int = LOCAL_KEYS) -> None:
        self.name, self.limit, self._clock, self._seconds = name, limit, clock, limit.seconds
        self.share = max(1, limit.amount // workers)
        self.shown_from = self.share // 10  # what is left when reads begin to show it
        # The window and the count of each key. TTLCache would take longer than all else that a read pays for.
        self._counted: LRUCache[str, list[Any]] = LRUCache(keys)

    def count(self, key: str) -> int:
        """Count a request, and return how many are left; negative for one that is to be refused."""
        window = self._clock() // self._seconds
        try:
            counted = self._counted[key]
        except KeyError:
            counted = self._counted[key] = [window, 0]
        if counted[0] != window:
            counted[:] = window, 0
        counted[1] += 1
        return int(self.share - counted[1])

    def quota(self, remaining: int) -> Quota:
        return Quota(self.name, self.limit, remaining, seconds_left(self.limit, self._clock()))


class Limits:
    """Counts in Redis, for all workers; without it, or while it does not answer, in this process."""

    def __init__(
        self,
        settings: LimitSettings,
        redis: Redis | None,
        *,
        namespace: str,
        workers: int,
        timeout_seconds: float,
        clock: Clock = time,
    ) -> None:
        """`namespace` begins the keys in Redis, whose answer is waited for `timeout_seconds` at most."""
        self.configured = settings.parsed
        self._workers, self._timeout_seconds, self._clock = workers, timeout_seconds, clock
        self._storage: RedisStorage | None = None
        if redis is not None:
            options: Any = {"connection_pool": redis.connection_pool, "key_prefix": f"{namespace}:limits"}
            self._storage = RedisStorage("redis://", implementation="redispy", **options)
        self._failed_at: float | None = None
        self._local: dict[tuple[str, Limit], LocalLimit] = {}

    async def count(self, name: str, limit: Limit, key: str) -> Quota:
        """Count a request. It is to be refused if `remaining` of the result is negative."""
        now = self._clock()
        used = await self._count_shared(name, limit, key, now)
        if used is not None:
            return Quota(name, limit, limit.amount - used, seconds_left(limit, now))
        local = self._local.get((name, limit)) or LocalLimit(name, limit, self._workers, self._clock)
        self._local[name, limit] = local
        return local.quota(local.count(key))

    async def _count_shared(self, name: str, limit: Limit, key: str, now: float) -> int | None:
        """How many requests there were in this window, in all workers; None if Redis does not say."""
        if self._storage is None:
            return None
        failed_at = self._failed_at
        if failed_at is not None:
            if abs(now - failed_at) < RETRY_SECONDS:
                return None
            self._failed_at = now  # while this request tries Redis, others do not
        # A hash, since keys may be long, and are of no concern to who reads Redis.
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        counter = f"{name}:{limit.seconds}:{int(now // limit.seconds)}:{digest}"
        try:
            async with asyncio.timeout(self._timeout_seconds):
                used = await self._storage.incr(counter, limit.seconds + SKEW_SECONDS)
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            # The last one is uvloop's, for what is written to a connection that has just ended.
            if self._failed_at is None:
                log.warning("Redis does not count for rate limits: each worker accepts its share (%r)", error)
            self._failed_at = now
            return None
        if failed_at is not None:  # unlike that of a request which was sent before another one failed
            self._failed_at = None
            log.warning("Redis counts for rate limits again: they are shared by all workers")
        return used


def seconds_left(limit: Limit, now: float) -> int:
    """Until the next window begins, rounded up: a client that waits so long is in it."""
    return max(1, ceil(limit.seconds - now % limit.seconds))
