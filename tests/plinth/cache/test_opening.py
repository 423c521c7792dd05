"""The process's Redis client: a bounded wait, and no retries."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import RedisError

from plinth.cache import RedisSettings, open_redis
from plinth.settings import Settings


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1")
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_without_a_url_there_is_no_client() -> None:
    async with open_redis(RedisSettings(url=None)) as redis:
        assert redis is None


async def test_a_burst_waits_for_free_connections(settings: Settings) -> None:
    narrow = settings.redis.model_copy(update={"max_connections": 2, "timeout_seconds": 5})
    async with open_redis(narrow) as redis:
        assert redis is not None
        assert all(await asyncio.gather(*(redis.ping() for _ in range(100))))


async def test_a_command_is_sent_once() -> None:
    attempts = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    async with listening(hang_up) as url, open_redis(RedisSettings(url=url)) as redis:
        assert redis is not None
        with pytest.raises(RedisError):
            await redis.ping()
    assert attempts == 1


async def test_a_command_without_a_reply_times_out() -> None:
    async def never_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        listening(never_reply) as url,
        open_redis(RedisSettings(url=url, timeout_seconds=0.05)) as redis,
        asyncio.timeout(5),
    ):
        assert redis is not None
        with pytest.raises(RedisError):
            await redis.ping()
