"""One connection for many: whoever leaves, is refused or is cut off, nobody gets what another one has asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.exceptions import ConnectionError, ResponseError

from plinth.cache import open_redis
from plinth.cache.connection import SharedConnection
from plinth.cache.settings import RedisSettings
from tests.plinth.cache.support import Road, until

MANY = 200
LARGE = b"." * 20_000_000


@asynccontextmanager
async def connected(url: str, lost: asyncio.Event | None = None) -> AsyncIterator[tuple[SharedConnection, list[Any]]]:
    heard: list[Any] = []
    async with open_redis(RedisSettings(url=url)) as redis:
        assert redis
        async with SharedConnection(redis, heard.append).opened(lost or asyncio.Event(), 5) as connection:
            yield connection, heard


@pytest.fixture
async def road(redis_url: str) -> AsyncIterator[Road]:
    address = urlsplit(redis_url)
    async with Road(address.hostname or "", address.port or 6379) as road:
        yield road


async def test_each_gets_his_own_answer_whatever_befalls_the_others(road: Road, redis_url: str) -> None:
    channel = f"test-{uuid4()}"

    async def ask(connection: SharedConnection, number: int) -> None:
        match number % 5:
            case 0:
                with pytest.raises(TypeError):
                    await connection.ask("ECHO", None)
            case 1:
                with pytest.raises(ResponseError):
                    await connection.ask("ECHO", number, "and more")
            case 2:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await connection.ask("ECHO", "nobody waits for this")
            case 3:
                assert await connection.ask("PUBLISH", channel, number) == 1
            case 4:
                assert await connection.ask("MGET", channel, channel) == [None, None]
        assert await connection.ask("ECHO", number) == str(number).encode()

    async with connected(road.through(redis_url)) as (connection, heard):
        await connection.ask("SUBSCRIBE", channel)
        road.holds_messages = True
        asking = asyncio.gather(*(ask(connection, number) for number in range(MANY)))
        await until(lambda: bool(road.held_back))
        road.mend()
        await asking
    assert heard == [[b"message", channel.encode(), str(number).encode()] for number in range(3, MANY, 5)]


async def test_with_the_connection_all_is_lost_and_nothing_is_sent_again(road: Road, redis_url: str) -> None:
    lost = asyncio.Event()
    with pytest.raises(ConnectionError, match="closed by server"):
        async with connected(road.through(redis_url), lost) as (connection, _), asyncio.timeout(5):
            road.passing = 0
            asking = asyncio.gather(*(connection.ask("ECHO", word) for word in range(3)), return_exceptions=True)
            await until(lambda: bool(road.held_back))
            with road.counting() as count:
                road.cut(listeners=True)
                ends = [*await asking, *await asyncio.gather(connection.ask("ECHO", 3), return_exceptions=True)]
                await lost.wait()
    assert [type(end) for end in ends] == [ConnectionError] * 4
    assert (count.connections, count.commands) == (0, [])
    assert lost.is_set()


async def test_who_leaves_while_he_still_sends_takes_the_connection_along(road: Road, redis_url: str) -> None:
    async with connected(road.through(redis_url)) as (connection, _):
        for end in road._open_ends:
            end.transport.pause_reading()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await connection.ask("ECHO", LARGE)
        with road.counting() as count, pytest.raises(ConnectionError):
            await connection.ask("PING")
        assert count.connections == 0


async def test_what_is_heard_and_not_understood_ends_it(redis_url: str) -> None:
    async def misunderstand() -> None:
        async with open_redis(RedisSettings(url=redis_url)) as redis:
            assert redis
            async with SharedConnection(redis, lambda said: [][len(said)]).opened(asyncio.Event(), 5) as connection:
                await connection.ask("SUBSCRIBE", "test")
                await connection.ask("PUBLISH", "test", "")

    with pytest.raises(IndexError):
        await misunderstand()
