"""Redis killed, paused, cut off or filled with nonsense: answers go on, and none is from before an invalidation."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import app.cache.cache
from app.cache import Cache, open_cache, open_redis
from app.cache.link import TRUST_SECONDS, Link
from app.cache.shared import RedisStore
from app.cache.store import Entry, pack, unpack
from app.config import CacheSettings, RedisSettings
from tests.wire import End, WireRedis
from tools.locks import held
from tools.network import LOOPBACK
from tools.valkey import Valkey

MANY = 100
FEW = 20
"""More commands than the listener sends in a minute to find out whether Redis is back."""


class Server:
    """A Valkey that can be killed and paused; it comes back at the same address."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey
        self.url = valkey.start()
        self.port = int(self.url.removesuffix("/0").rpartition(":")[2])

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        self._valkey.process.stop()

    def start(self) -> None:
        assert self._valkey.start() == self.url

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(signal.SIGCONT)

    def client(self) -> Any:
        return Redis.from_url(self.url)

    async def save(self) -> None:
        """From now on, start with what is there now."""
        async with self.client() as client:
            await client.save()

    def _send(self, number: signal.Signals) -> None:
        assert self._valkey.process.pid
        os.kill(self._valkey.process.pid, number)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    valkey = Valkey(tmp_path, durable=False)
    with held(tmp_path):
        try:
            server = Server(valkey)
            monkeypatch.setattr("tools.valkey.free_port", lambda: server.port)
            yield server
        finally:
            valkey.process.stop()


class HalfOpen(WireRedis):
    """Once told, it swallows what is sent either way, and closes nothing."""

    swallows = False

    def _sent(self, client: End, data: bytes) -> bytes:
        return b"" if self.swallows else super()._sent(client, data)

    def _received(self, server: End, data: bytes) -> bytes:
        return b"" if self.swallows else super()._received(server, data)

    def recover(self) -> None:
        """For connections that are made from now on: what an old one has lost cannot come back."""
        self.swallows = False
        for end in list(self._open_ends):
            end.transport.abort()


class LostAnswer(WireRedis):
    """Once told, it withholds the next answer to an invalidation until the connection is cut."""

    withholds = False
    asked: End | None = None
    waiting: End | None = None

    def _read(self, client: End, frame: bytes) -> bytes:
        if self.withholds and self.asked is None and b"PUBLISH" in frame:
            self.asked = client.peer
        return super()._read(client, frame)

    def _received(self, server: End, data: bytes) -> bytes:
        if server is self.asked and self.waiting is None:
            self.waiting = server
            return b""
        return super()._received(server, data)

    def cut(self) -> None:
        assert self.waiting
        self.waiting.transport.abort()


@asynccontextmanager
async def opened(url: str, timeout_seconds: float = 0.1) -> AsyncIterator[Cache]:
    """A cache as each process has one, which trusts Redis already."""
    settings = RedisSettings(url=url, timeout_seconds=timeout_seconds)
    async with open_redis(settings) as redis, open_cache(CacheSettings(), redis, timeout_seconds) as cache:
        await until(lambda: link_of(cache).trusted)
        yield cache


def link_of(cache: Cache) -> Link:
    assert isinstance(cache._store, RedisStore)
    return cache._store._link


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not (met if isinstance(met := condition(), bool) else await met):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


class Source:
    """What is cached: the number of the latest write."""

    value = 0
    loads = 0

    async def load(self) -> int:
        self.loads += 1
        value = self.value
        await asyncio.sleep(0.001)
        return value

    async def get(self, cache: Cache, key: str = "answer") -> int:
        return await cache.remember(key, 600, self.load, schema=int, tags=["answers"])

    async def write(self, cache: Cache) -> int:
        self.value += 1
        value = self.value
        await cache.invalidate("answers")
        return value

    async def is_right(self, cache: Cache, times: int = MANY) -> None:
        for _ in range(times):
            assert await self.get(cache) == self.value

    async def has_reached(self, cache: Cache) -> bool:
        return await self.get(cache) == self.value

    async def hits(self, *caches: Cache) -> bool:
        """Whether nothing is loaded; an old answer fails the test."""
        before = self.loads
        for cache in caches:
            await self.is_right(cache, times=2)
        return self.loads == before


@pytest.fixture
def source() -> Source:
    return Source()


async def test_redis_is_killed_and_comes_back_with_what_it_held(server: Server, source: Source) -> None:
    async with opened(server.url) as a, opened(server.url) as b:
        await until(lambda: source.hits(a, b))
        await server.save()
        server.kill()
        await until(lambda: not link_of(b).trusted)
        for cache in (a, b):
            await source.write(cache)
            await source.is_right(a)
            await source.is_right(b)
        assert link_of(a).failures < FEW
        assert link_of(b).failures < FEW
        server.start()
        await until(lambda: source.hits(a, b))
        await source.is_right(a)
        await source.is_right(b)


async def test_redis_comes_back_with_less_than_it_knew(server: Server, source: Source) -> None:
    async with opened(server.url) as a, opened(server.url) as b:
        await until(lambda: source.hits(a, b))
        await server.save()
        await source.write(a)
        await until(lambda: source.has_reached(b))
        await until(lambda: source.hits(a, b))
        server.kill()
        server.start()  # with the value before the write, and its generations
        await source.is_right(a)
        await source.is_right(b)
        await until(lambda: source.hits(a, b))


async def test_nothing_is_read_from_a_redis_that_restarted_before_that_is_noticed(
    server: Server, source: Source
) -> None:
    for attempt in range(5):
        keys = [f"key {attempt} {number}" for number in range(20)]
        async with opened(server.url) as a, opened(server.url) as b:
            await asyncio.gather(*(source.get(a, key) for key in keys))
            await server.save()
            await source.write(a)
            server.kill()
            server.start()
            assert {*await asyncio.gather(*(source.get(b, key) for key in keys))} == {source.value}


async def test_who_is_opened_after_redis_came_back_with_less_trusts_nothing_of_it(
    server: Server, source: Source
) -> None:
    async with opened(server.url) as cache:
        await until(lambda: source.hits(cache))
        await server.save()
        await source.write(cache)
    server.kill()
    server.start()
    async with opened(server.url) as cache:
        assert await source.get(cache) == 1


@pytest.mark.parametrize("first", ["a read", "an invalidation"])
async def test_redis_is_paused(server: Server, source: Source, first: str) -> None:
    async with opened(server.url) as a, opened(server.url) as b:
        await until(lambda: source.hits(a, b))
        with server.paused():
            before = link_of(a).failures
            if first == "a read":
                assert await source.get(a, "another") == 0
                assert not link_of(a).trusted
            await source.write(a)
            assert link_of(a).failures > before
            await source.is_right(a)
            await source.write(a)
            await source.is_right(a)
            assert link_of(a).failures < before + FEW
        await source.is_right(a)
        await until(lambda: source.has_reached(b))
        await until(lambda: source.hits(a, b))


async def test_nobody_is_told_while_redis_is_paused_and_nobody_serves_what_is_old(
    server: Server, source: Source
) -> None:
    async with opened(server.url) as a, opened(server.url) as b:
        await until(lambda: source.hits(a, b))
        with server.paused():
            await until(lambda: not link_of(b).trusted)
            await source.write(a)
            await source.is_right(b)
        await source.is_right(b)
        await until(lambda: source.hits(a, b))


async def test_a_connection_is_half_open(server: Server, source: Source) -> None:
    async with (
        HalfOpen(LOOPBACK, server.port) as wire,
        opened(server.url) as a,
        opened(wire.through(server.url)) as b,
    ):
        await until(lambda: source.hits(a, b))
        wire.swallows = True
        await source.write(a)
        await until(lambda: source.has_reached(b), TRUST_SECONDS + 0.5)
        await source.is_right(b)
        await until(lambda: source.hits(a))
        await source.write(b)
        await source.is_right(b)
        wire.recover()
        await source.is_right(b)
        await until(lambda: source.has_reached(a))
        await until(lambda: source.hits(a, b))


async def test_an_invalidation_that_is_sent_twice_brings_nothing_back(server: Server, source: Source) -> None:
    async with LostAnswer(LOOPBACK, server.port) as wire, opened(wire.through(server.url), timeout_seconds=5) as a:
        async with opened(server.url) as b:
            await until(lambda: source.hits(a, b))
            wire.withholds = True
            writing = asyncio.create_task(source.write(a))
            await until(lambda: wire.waiting is not None)
            await until(lambda: source.has_reached(b))
            await source.write(b)
            wire.cut()  # and its client tries again
            await writing
        async with opened(server.url) as c:
            await source.is_right(c)


async def test_an_invalidation_is_not_lost_with_its_caller(server: Server, source: Source) -> None:
    async with opened(server.url, timeout_seconds=5) as a, opened(server.url) as b:
        await until(lambda: source.hits(a, b))
        pool: Any = link_of(a).redis.connection_pool
        taken = [await pool.get_connection() for _ in range(RedisSettings().max_connections - 1)]
        writing = asyncio.create_task(source.write(a))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        for connection in taken:
            await pool.release(connection)
        await source.is_right(a)
        await until(lambda: source.has_reached(b))


async def test_a_claim_from_before_an_outage_holds_nobody_up(
    server: Server, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.cache.cache, "CLAIM_SECONDS", 600)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> int:
        begun.set()
        await go_on.wait()
        return await source.load()

    async with opened(server.url) as cache:
        early = asyncio.create_task(cache.remember("answer", 600, load, schema=int))
        await begun.wait()
        with server.paused():
            await source.get(cache, "another")
            assert not link_of(cache).trusted
            go_on.set()
            await early
        await until(lambda: link_of(cache).trusted)
        async with asyncio.timeout(5):
            await source.get(cache)


async def test_an_answer_is_never_older_than_a_write_before_it(server: Server, source: Source) -> None:
    written: dict[Cache, int] = {}
    reads = writes = 0
    over = False

    async def read(cache: Cache) -> None:
        nonlocal reads
        while not over:
            at_least = written[cache]
            assert await source.get(cache) >= at_least
            reads += 1
            await asyncio.sleep(0)

    async def write(cache: Cache) -> None:
        nonlocal writes
        while not over:
            written[cache] = await source.write(cache)
            writes += 1
            await asyncio.sleep(0.002)

    async def some(reads_more: int = MANY, writes_more: int = FEW) -> None:
        enough = reads + reads_more, writes + writes_more
        await until(lambda: reads >= enough[0] and writes >= enough[1], 20)

    async with opened(server.url) as a, opened(server.url) as b:
        async with asyncio.TaskGroup() as tasks:
            for cache in (a, b):
                written[cache] = 0
                tasks.create_task(write(cache))
                for _ in range(4):
                    tasks.create_task(read(cache))
            for _ in range(2):
                await some()
                await server.save()
                await some()
                server.kill()
                await some()
                server.start()
                await until(lambda: link_of(a).trusted and link_of(b).trusted)
            await some()
            over = True
        await until(lambda: source.has_reached(a))
        await until(lambda: source.has_reached(b))
        await until(lambda: source.hits(a, b))


@pytest.mark.parametrize("foreign", ["bytes", "a list", "another value"])
async def test_a_foreign_value_is_a_miss(server: Server, source: Source, foreign: str) -> None:
    async with opened(server.url) as a, opened(server.url) as b, server.client() as client:
        await until(lambda: source.hits(a))
        (key,) = await client.keys("plinth:entry:*")
        entry = unpack(await client.get(key))
        assert entry
        await client.delete(key)
        if foreign == "bytes":
            await client.set(key, b"\0\xff{[\n")
        elif foreign == "a list":
            await client.lpush(key, "foreign")
        else:
            unreadable = Entry(b"no number", entry.generations, entry.fresh_until, entry.kept_until)
            await client.set(key, pack(unreadable))
        loads = source.loads
        assert await source.get(b) == 0
        assert source.loads == loads + 1
        assert await source.hits(b)
        assert link_of(b).failures == 0
        assert link_of(b).trusted
        assert unpack(await client.get(key))  # and what was loaded has taken its place


async def test_a_foreign_generation_is_counted_and_nothing_is_kept(server: Server, source: Source) -> None:
    async with opened(server.url) as cache, server.client() as client:
        await client.lpush("plinth:generation:answers", "foreign")
        for times in (1, 2):
            before = link_of(cache).failures
            assert await source.get(cache) == 0
            assert source.loads == times
            assert link_of(cache).failures > before
        assert link_of(cache).trusted
        await source.write(cache)
        assert await source.get(cache) == 1
        assert await source.hits(cache)
