import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg
import pytest

from plinth.database.pool import Pool
from plinth.errors import UnavailableError

Connect: TypeAlias = Callable[[], Awaitable[asyncpg.Connection]]


@pytest.fixture
def connect(database_url: str) -> Connect:
    return lambda: asyncpg.connect(database_url)


def pool_of(
    size: int,
    connect: Connect,
    timeout_seconds: float = 10,
    recycle_seconds: float = 60,
) -> Pool:
    return Pool(connect, size, timeout_seconds=timeout_seconds, recycle_seconds=recycle_seconds)


async def test_a_connection_is_used_again(connect: Connect) -> None:
    pool = pool_of(2, connect)
    first = await pool.acquire()
    pool.release(first)
    assert await pool.acquire() is first
    pool.release(first)
    await pool.close()
    assert first.is_closed()


async def test_the_last_one_used_is_the_next(connect: Connect) -> None:
    pool = pool_of(2, connect)
    one, two = await pool.acquire(), await pool.acquire()
    pool.release(one)
    pool.release(two)
    assert await pool.acquire() is two
    pool.release(two)
    await pool.close()


async def test_callers_wait_in_turn(connect: Connect) -> None:
    pool = pool_of(1, connect)
    served: list[int] = []

    async def use(number: int) -> None:
        connection = await pool.acquire()
        served.append(number)
        await connection.fetchval("SELECT 1")
        pool.release(connection)

    await asyncio.gather(*(use(number) for number in range(10)))
    assert served == list(range(10))
    await pool.close()


async def test_whatever_happens_no_more_are_open_than_its_size(
    connect: Connect,
) -> None:
    """Uses that end well, fail, are cancelled at any moment, break their connection, or find the server away."""
    chance = random.Random(20261121)
    opened: set[asyncpg.Connection] = set()
    most = 0

    async def watched_connect() -> asyncpg.Connection:
        nonlocal most
        if chance.random() < 0.1:
            raise UnavailableError("away")
        connection = await connect()
        opened.add(connection)
        most = max(most, sum(not one.is_closed() for one in opened))
        return connection

    pool = pool_of(3, watched_connect, timeout_seconds=0.2, recycle_seconds=0.02)

    async def use() -> None:
        connection = await pool.acquire()
        try:
            await connection.fetchval("SELECT pg_sleep($1)", chance.choice([0, 0, 0, 0.01]))
            if chance.random() < 0.1:
                connection.terminate()
        except BaseException:
            pool.discard(connection)
            raise
        pool.release(connection)

    tasks = []
    for _ in range(400):
        task = asyncio.create_task(use())
        tasks.append(task)
        if chance.random() < 0.3:
            asyncio.get_running_loop().call_later(chance.random() * 0.02, task.cancel)
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), UnavailableError, asyncio.CancelledError}
    assert most == 3
    # No place was lost on the way: all three can be had at once.
    patient = [asyncio.create_task(acquire_in_the_end(pool)) for _ in range(3)]
    for connection in await asyncio.gather(*patient):
        pool.release(connection)
    await pool.close()
    assert all(connection.is_closed() for connection in opened)


async def acquire_in_the_end(pool: Pool) -> asyncpg.Connection:
    async with asyncio.timeout(10):
        while True:
            try:
                return await pool.acquire()
            except UnavailableError:
                await asyncio.sleep(0)  # there is a place for it, but the server was away


async def test_a_full_pool_is_told_after_a_while(connect: Connect) -> None:
    pool = pool_of(1, connect, timeout_seconds=0.01)
    connection = await pool.acquire()
    with pytest.raises(UnavailableError, match="busy"):
        await pool.acquire()
    pool.release(connection)
    assert await pool.acquire() is connection
    pool.release(connection)
    await pool.close()


async def test_a_cancelled_wait_passes_its_turn_on(connect: Connect) -> None:
    pool = pool_of(1, connect)
    connection = await pool.acquire()
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.release(connection)  # the first is served, and cancelled before it knows
    first.cancel()
    assert await second is connection
    pool.release(connection)
    await pool.close()


async def test_a_connection_grown_old_is_replaced(connect: Connect) -> None:
    pool = pool_of(1, connect, recycle_seconds=0)
    old = await pool.acquire()
    pool.release(old)
    new = await pool.acquire()
    assert new is not old
    assert old.is_closed()
    pool.release(new)
    await pool.close()


async def test_what_comes_back_after_the_end_is_closed(connect: Connect) -> None:
    pool = pool_of(1, connect)
    connection = await pool.acquire()
    await pool.close()
    assert not connection.is_closed()
    pool.release(connection)
    assert connection.is_closed()


async def test_a_connection_that_comes_back_in_a_transaction_is_closed(connect: Connect) -> None:
    pool = pool_of(1, connect)
    connection = await pool.acquire()
    await connection.execute("BEGIN")
    pool.release(connection)
    assert connection.is_closed()
    connection = await pool.acquire()
    assert not connection.is_in_transaction()
    pool.release(connection)
    await pool.close()


async def test_who_waits_when_it_is_closed_waits_no_longer(connect: Connect) -> None:
    pool = pool_of(1, connect)
    connection = await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(waiting, timeout=5)
    pool.release(connection)
