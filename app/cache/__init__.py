"""Caching that is right under load: in memory, in Redis, or both, with invalidation that reaches every process.

Redis is a help, never a need: every command is bounded, and its failure is survived.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.cache.cache import Cache, Invalidate, Loaded
from app.cache.link import Link
from app.cache.remembered import remembered
from app.cache.responses import ResponseCacheMiddleware
from app.cache.routes import CachedRoutes, cached_response
from app.cache.store import Store
from app.cache.stores import Memory, MemoryStore, TwoLevelStore
from app.config import CacheSettings, RedisSettings

__all__ = [
    "Cache",
    "CachedRoutes",
    "Invalidate",
    "Loaded",
    "ResponseCacheMiddleware",
    "cached_response",
    "open_cache",
    "open_redis",
    "remembered",
]


@asynccontextmanager
async def open_redis(settings: RedisSettings) -> AsyncIterator[Redis | None]:
    """The process's client, or None where no REDIS_URL is set. Connects at the first command."""
    if settings.url is None:
        yield None
        return
    # The default pool raises when a burst wants more connections than it has; this one lets the burst wait.
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.max_connections,
        timeout=settings.timeout_seconds,
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        # By itself a client would repeat what it sent when a connection broke: an invalidation that comes twice could
        # bring back what another one came between for. And a listener would connect anew without telling us.
        retry=Retry(NoBackoff(), 0, supported_errors=()),
    )
    async with Redis.from_pool(pool) as redis:
        yield redis


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
