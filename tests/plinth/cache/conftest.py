"""The two stores, each with a namespace of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from plinth.cache import Cache, open_redis
from plinth.cache.bus import InvalidationBus
from plinth.cache.stores import Memory, MemoryStore, SharedStore
from plinth.settings import Settings


@asynccontextmanager
async def running_bus(settings: Settings, namespace: str) -> AsyncIterator[InvalidationBus]:
    async with open_redis(settings.redis) as redis:
        assert redis is not None
        bus = InvalidationBus(redis, namespace, timeout_seconds=5, max_name_bytes=200_000)
        async with bus.running():
            assert bus.trusted
            yield bus


@pytest.fixture(params=["memory", "shared"])
async def store(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[MemoryStore]:
    memory = Memory(max_entries=100, max_bytes=2**20)
    if request.param == "memory":
        yield MemoryStore(memory)
        return
    async with running_bus(settings, f"test-{uuid4()}") as bus:
        yield SharedStore(memory, bus)


@pytest.fixture
async def cache(store: MemoryStore) -> AsyncIterator[Cache]:
    cache = Cache(store)
    yield cache
    await cache.close()
