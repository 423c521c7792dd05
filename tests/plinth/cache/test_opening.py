import asyncio

import pytest
from redis.exceptions import RedisError

from plinth.cache import open_redis
from plinth.cache.settings import RedisSettings
from plinth.settings import Settings


async def test_without_a_url_there_is_none() -> None:
    async with open_redis(RedisSettings(url=None)) as redis:
        assert redis is None


async def test_it_answers(settings: Settings) -> None:
    async with open_redis(settings.redis) as redis:
        assert redis is not None
        assert await redis.ping()


async def test_a_burst_waits_for_its_turn(settings: Settings) -> None:
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

    server = await asyncio.start_server(hang_up, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with server, open_redis(RedisSettings(url=f"redis://127.0.0.1:{port}")) as redis:
        assert redis is not None
        with pytest.raises(RedisError):
            await redis.ping()
    assert attempts == 1


async def test_a_silent_server_is_given_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    silent = RedisSettings(url=f"redis://127.0.0.1:{port}", timeout_seconds=0.05)
    async with server, open_redis(silent) as redis, asyncio.timeout(5):
        assert redis is not None
        with pytest.raises(RedisError):
            await redis.ping()
