"""One connection for many callers: each gets the reply to its own command, whatever happens to the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.exceptions import ConnectionError, ResponseError

from plinth.cache import RedisSettings, open_redis
from plinth.cache.connection import SharedConnection
from tests.faults.redis_server import wait_until
from tests.plinth.cache.support import FaultyWire

MANY = 200
LARGE = b"." * 20_000_000


@asynccontextmanager
async def connected(url: str, lost: asyncio.Event | None = None) -> AsyncIterator[tuple[SharedConnection, list[Any]]]:
    messages: list[Any] = []
    async with asyncio.timeout(30), open_redis(RedisSettings(url=url)) as redis:
        assert redis
        async with SharedConnection(redis, messages.append).open(lost or asyncio.Event(), 5) as connection:
            yield connection, messages


@pytest.fixture
async def faulty(redis_url: str) -> AsyncIterator[FaultyWire]:
    address = urlsplit(redis_url)
    async with FaultyWire(address.hostname or "", address.port or 6379) as wire:
        yield wire


async def test_replies_are_those_of_redis_pys_client(redis_url: str) -> None:
    key, other = f"test-{uuid4()}", f"test-{uuid4()}"
    script = "return {redis.call('GET', KEYS[1]), ARGV[1], false, 7}"
    commands: list[tuple[Any, ...]] = [
        ("ECHO", b"\0\xff\r\n"),
        ("GET", key),
        ("SET", key, "one", "NX", "GET", "PX", 60_000),
        ("SET", key, b"two", "NX", "GET", "PX", 60_000),
        ("MGET", key, other, key),
        ("EVAL", script, 1, key, 2.5),
        ("EVAL", "return redis.error_reply('no')", 0),
        ("LPUSH", other, 1, 2, 3),
        ("GET", other),
        ("LRANGE", other, 0, -1),
        ("HSET", key, "a", "b"),
        ("PUBLISH", key, "nothing"),
        ("NONSENSE",),
        ("DEL", key, other),
    ]

    async def replies(execute: Any) -> list[Any]:
        done = [(await asyncio.gather(execute(*words), return_exceptions=True))[0] for words in commands]
        return [(type(reply), str(reply)) if isinstance(reply, Exception) else reply for reply in done]

    async with connected(redis_url) as (connection, _), open_redis(RedisSettings(url=redis_url)) as redis:
        assert redis

        async def by_client(*words: Any) -> Any:
            # Not by `execute_command`, which converts some replies.
            stock: Any = redis.connection_pool.connection_class(**redis.connection_pool.connection_kwargs)
            await stock.connect()
            try:
                await stock.send_command(*words)
                return await stock.read_response()
            finally:
                await stock.disconnect()

        assert await replies(connection.execute) == await replies(by_client)


async def test_each_caller_gets_its_own_reply(faulty: FaultyWire, redis_url: str) -> None:
    channel = f"test-{uuid4()}"

    async def call(connection: SharedConnection, number: int) -> None:
        match number % 5:
            case 0:
                with pytest.raises(TypeError):
                    await connection.execute("ECHO", None)
            case 1:
                with pytest.raises(ResponseError):
                    await connection.execute("ECHO", number, "one too many")
            case 2:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await connection.execute("ECHO", "its caller is cancelled")
            case 3:
                assert await connection.execute("PUBLISH", channel, number) == 1
            case 4:
                assert await connection.execute("MGET", channel, channel) == [None, None]
        assert await connection.execute("ECHO", number) == str(number).encode()

    async with connected(faulty.through(redis_url)) as (connection, messages):
        await connection.execute("SUBSCRIBE", channel)
        faulty.holds_messages = True
        calls = asyncio.gather(*(call(connection, number) for number in range(MANY)))
        await wait_until(lambda: bool(faulty.held))
        faulty.restore()
        await calls
    assert messages == [[b"message", channel.encode(), str(number).encode()] for number in range(3, MANY, 5)]


async def test_a_lost_connection_fails_all_callers_and_sends_nothing_again(faulty: FaultyWire, redis_url: str) -> None:
    lost = asyncio.Event()
    with pytest.raises(ConnectionError, match="closed by server"):
        async with connected(faulty.through(redis_url), lost) as (connection, _), asyncio.timeout(5):
            faulty.replies_to_pass = 0
            calls = asyncio.gather(*(connection.execute("ECHO", word) for word in range(3)), return_exceptions=True)
            await wait_until(lambda: bool(faulty.held))
            with faulty.counting() as count:
                faulty.cut(subscribers=True)
                late = await asyncio.gather(connection.execute("ECHO", 3), return_exceptions=True)
                errors = [*await calls, *late]
                await lost.wait()
    assert [type(error) for error in errors] == [ConnectionError] * 4
    assert (count.connections, count.commands) == (0, [])
    assert lost.is_set()


async def test_a_caller_that_gives_up_while_it_sends_does_not_disturb_the_others(
    faulty: FaultyWire, redis_url: str
) -> None:
    async with connected(faulty.through(redis_url)) as (connection, _):
        faulty.pause_clients()
        with pytest.raises(TimeoutError):
            await connection.execute("ECHO", LARGE, timeout_seconds=0)
        late = asyncio.create_task(connection.execute("ECHO", 1))
        await asyncio.sleep(0)
        faulty.resume_clients()
        assert await late == b"1"


async def test_what_is_sent_in_one_turn_of_the_loop_leaves_in_one_packet(faulty: FaultyWire, redis_url: str) -> None:
    async with connected(faulty.through(redis_url)) as (connection, _):
        await connection.execute("PING")
        packets = faulty.packets
        connection.post("ECHO", "nobody waits for it")
        assert await asyncio.gather(*(connection.execute("ECHO", number) for number in range(10)))
        assert faulty.packets == packets + 1
        with faulty.counting() as count:
            for number in range(1000):  # more than are sent while Redis is slow
                connection.post("ECHO", number)
            await connection.execute("PING")
        assert len(count.commands) < 200


async def test_an_exception_of_the_message_handler_ends_the_connection(redis_url: str) -> None:
    async def subscribe_and_publish() -> None:
        async with open_redis(RedisSettings(url=redis_url)) as redis:
            assert redis
            async with SharedConnection(redis, lambda message: [][len(message)]).open(asyncio.Event(), 5) as connection:
                await connection.execute("SUBSCRIBE", "test")
                await connection.execute("PUBLISH", "test", "")

    with pytest.raises(IndexError):
        await subscribe_and_publish()
