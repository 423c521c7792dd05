"""The process's cache: memory, and Redis behind it where there is one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from app.cache.cache import Cache
from app.cache.link import Link
from app.cache.memory import Memory, MemoryStore
from app.cache.shared import TwoLevelStore
from app.cache.store import Store
from app.config import CacheSettings


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
