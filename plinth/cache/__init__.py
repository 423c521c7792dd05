"""Caching in memory, in Redis or in both, with invalidation that reaches every process.

Redis is optional at run time: every command has a timeout, and while Redis is unavailable the database is read instead.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from plinth.cache.bus import InvalidationBus
from plinth.cache.cache import Cache
from plinth.cache.connection import open_redis
from plinth.cache.middleware import ResponseCacheMiddleware
from plinth.cache.routes import CachedRoutes, cached_response
from plinth.cache.settings import CacheSettings, RedisSettings
from plinth.cache.stores import Memory, MemoryStore, SharedStore
from plinth.cache.tags import Invalidate, Tag

__all__ = [
    "Cache",
    "CacheSettings",
    "CachedRoutes",
    "Invalidate",
    "RedisSettings",
    "ResponseCacheMiddleware",
    "Tag",
    "cached_response",
    "open_cache",
    "open_redis",
]


@asynccontextmanager
async def open_cache(
    settings: CacheSettings, redis: Redis | None, timeout_seconds: float, *, listens: bool = False
) -> AsyncIterator[Cache]:
    """Open the cache of this process. Each command to Redis takes `timeout_seconds` at most.

    Without Redis, invalidations stay within the process, so nothing is kept unless CACHE_RESPONSES=memory says that
    there is no other. `listens` is whether this process uses `last_invalidation_at`, for which others then publish.
    """
    memory = Memory(settings.memory_entries, settings.memory_megabytes * 2**20)
    async with AsyncExitStack() as stack:
        store = MemoryStore(memory, keeps=settings.responses == "memory")
        if redis is not None:
            bus = InvalidationBus(redis, settings.namespace, timeout_seconds, memory.max_name_bytes, listens=listens)
            await stack.enter_async_context(bus.running())
            store = SharedStore(memory, bus)
        cache = Cache(store, settings.stale_seconds)
        stack.push_async_callback(cache.close)
        yield cache
