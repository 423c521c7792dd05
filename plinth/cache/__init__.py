"""Caching that is right under load: in memory, in Redis, or both, with invalidation that reaches every process.

Redis is a help, never a need: every command is bounded, and its failure is survived.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from plinth.cache.cache import Cache, Invalidate, Loaded
from plinth.cache.connection import open_redis
from plinth.cache.link import Link
from plinth.cache.remembered import remembered
from plinth.cache.responses import ResponseCacheMiddleware
from plinth.cache.routes import CachedRoutes, cached_response
from plinth.cache.settings import CacheSettings, RedisSettings
from plinth.cache.store import Store
from plinth.cache.stores import Memory, MemoryStore, TwoLevelStore

__all__ = [
    "Cache",
    "CacheSettings",
    "CachedRoutes",
    "Invalidate",
    "Loaded",
    "RedisSettings",
    "ResponseCacheMiddleware",
    "cached_response",
    "open_cache",
    "open_redis",
    "remembered",
]


@asynccontextmanager
async def open_cache(settings: CacheSettings, redis: Redis | None, timeout_seconds: float) -> AsyncIterator[Cache]:
    """Without Redis, other processes hear of no invalidation: they serve what they have until its time is over."""
    memory = Memory(settings.memory_entries, settings.memory_megabytes * 2**20)
    async with AsyncExitStack() as stack:
        store: Store = MemoryStore(memory)
        if redis is not None:
            link = Link(redis, settings.namespace, timeout_seconds, memory.max_names)
            await stack.enter_async_context(link.running())
            store = TwoLevelStore(memory, link)
        cache = Cache(store)
        stack.push_async_callback(cache.close)
        yield cache
