"""Redis is a help, never a need: every command is bounded, and its failure is survived."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.config import RedisSettings


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
        retry=Retry(NoBackoff(), 1),  # the default is ten retries: four seconds for each command while Redis is away
    )
    async with Redis.from_pool(pool) as redis:
        yield redis
