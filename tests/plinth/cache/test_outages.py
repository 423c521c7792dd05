"""Redis killed, paused, cut off or filled with nonsense: answers go on, and none is from before an invalidation."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import plinth.cache.cache
from plinth.cache import Cache
from plinth.cache.link import AT_ONCE, TRUST_SECONDS
from plinth.cache.store import Entry, pack, unpack
from plinth.testing.network import LOOPBACK
from tests.plinth.cache.support import Road, Server, link_of, mortal_server, opened, until

MANY = 100
FEW = 20
"""More commands than the listener sends in a minute to find out whether Redis is back."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with mortal_server(tmp_path, monkeypatch) as server:
        yield server


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
        async with opened(server.url, timeout_seconds=5) as a, opened(server.url, timeout_seconds=5) as b:
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
            await until(lambda: not link_of(b).reachable)
            await source.write(a)
            await source.is_right(b)
        await source.is_right(b)
        await until(lambda: source.hits(a, b))


async def test_an_invalidation_is_lost_on_its_way(server: Server, source: Source) -> None:
    async with Road(LOOPBACK, server.port) as road, opened(road.through(server.url)) as a, opened(server.url) as b:
        await until(lambda: source.hits(a, b))
        road.lose_connections()
        await source.write(a)
        await until(lambda: source.has_reached(b))
        await until(lambda: source.hits(a, b))


async def test_a_connection_is_half_open(server: Server, source: Source) -> None:
    async with (
        Road(LOOPBACK, server.port) as road,
        opened(server.url) as a,
        opened(road.through(server.url)) as b,
    ):
        await until(lambda: source.hits(a, b))
        road.silent = "all"
        await source.write(a)
        await until(lambda: source.has_reached(b), TRUST_SECONDS + 0.5)
        await source.is_right(b)
        await until(lambda: source.hits(a))
        await source.write(b)
        await source.is_right(b)
        road.mend()
        await source.is_right(b)
        await until(lambda: source.has_reached(a))
        await until(lambda: source.hits(a, b))


async def test_a_late_beat_does_not_bring_back_trust(server: Server, source: Source) -> None:
    async with Road(LOOPBACK, server.port) as road, opened(road.through(server.url)) as cache:
        await until(lambda: source.hits(cache))
        road.holds_messages = True
        await until(lambda: bool(road.held_back))
        road.silent = "commands"
        await source.write(cache)
        road.mend()
        await until(lambda: source.hits(cache))


async def test_another_database_of_the_same_redis_is_another_cache(server: Server, source: Source) -> None:
    async with opened(server.url) as a, opened(server.url.removesuffix("0") + "1") as b:
        await until(lambda: source.hits(a, b))
        names, before = link_of(a).names, link_of(a).names.generations(["name:answers"])
        await b.invalidate("answers")
        await a.invalidate("marker")
        await until(lambda: names.generations(["name:marker"]) is not None)
        assert names.generations(["name:answers"]) == before


async def test_an_invalidation_is_not_lost_with_its_caller(server: Server, source: Source) -> None:
    async with opened(server.url, timeout_seconds=5) as a, opened(server.url) as b:
        await until(lambda: source.hits(a, b))
        for _ in range(AT_ONCE):
            await link_of(a)._slots.acquire()
        writing = asyncio.create_task(source.write(a))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        for _ in range(AT_ONCE):
            link_of(a)._slots.release()
        await source.is_right(a)
        await until(lambda: source.has_reached(b))


async def test_a_claim_from_before_an_outage_holds_nobody_up(
    server: Server, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plinth.cache.cache, "CLAIM_SECONDS", 600)
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
        await client.lpush("plinth:generation:name:answers", "foreign")
        for times in (1, 2):
            before = link_of(cache).failures
            assert await source.get(cache) == 0
            assert source.loads == times
            assert link_of(cache).failures > before
        assert link_of(cache).trusted
        await source.write(cache)
        assert await source.get(cache) == 1
        assert await source.hits(cache)
