"""Redis killed, paused, cut off or full of foreign data: requests succeed, and no invalidated value is served."""

import asyncio
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Connection, Redis

from plinth.cache import Cache, CacheSettings, RedisSettings, Tag, open_cache, open_redis
from plinth.cache.bus import MAX_CONCURRENT_COMMANDS, TRUST_SECONDS
from plinth.cache.entries import Entry, Lookup, pack, unpack
from plinth.cache.generations import MAX_UNPUBLISHED
from plinth.testing.network import LOOPBACK
from plinth.testing.wire import End
from tests.faults.redis_server import RestartableServer, restartable_server, wait_until
from tests.plinth.cache.support import FaultyWire, bus_of, trusting_cache

MANY = 100
FEW = 20
"""More commands than the bus sends in a minute to find out whether Redis is back."""
ANSWERS = Tag("answers")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RestartableServer]:
    with restartable_server(tmp_path) as server:
        yield server


class Source:
    """Stands for a database. The cached value is the number of the latest write."""

    value = 0
    loads = 0

    async def load(self) -> int:
        self.loads += 1
        value = self.value
        await asyncio.sleep(0.001)
        return value

    async def get(self, cache: Cache, key: str = "answer") -> int:
        return await cache.remember(key, 600, self.load, schema=int, tags=[ANSWERS])

    async def write(self, cache: Cache) -> int:
        self.value += 1
        value = self.value
        await cache.invalidate(ANSWERS)
        return value

    async def is_right(self, cache: Cache, times: int = MANY) -> None:
        for _ in range(times):
            assert await self.get(cache) == self.value

    async def has_reached(self, cache: Cache) -> bool:
        return await self.get(cache) == self.value

    async def hits(self, *caches: Cache) -> bool:
        """Whether nothing is loaded. Asserts that the values are current."""
        before = self.loads
        for cache in caches:
            await self.is_right(cache, times=2)
        return self.loads == before


@pytest.fixture
def source() -> Source:
    return Source()


async def test_redis_restarts_with_its_data(server: RestartableServer, source: Source) -> None:
    async with trusting_cache(server.url) as a, trusting_cache(server.url) as b:
        await wait_until(lambda: source.hits(a, b))
        await server.save()
        server.kill()
        await wait_until(lambda: not bus_of(b).trusted)
        for cache in (a, b):
            await source.write(cache)
            await source.is_right(a)
            await source.is_right(b)
        assert bus_of(a).failures < FEW
        assert bus_of(b).failures < FEW
        server.start()
        await wait_until(lambda: source.hits(a, b))
        await source.is_right(a)
        await source.is_right(b)


async def test_redis_restarts_with_older_data(server: RestartableServer, source: Source) -> None:
    async with trusting_cache(server.url) as a, trusting_cache(server.url) as b:
        await wait_until(lambda: source.hits(a, b))
        await server.save()
        await source.write(a)
        await wait_until(lambda: source.has_reached(b))
        await wait_until(lambda: source.hits(a, b))
        server.kill()
        server.start()  # with the value from before the write, and its generations
        await source.is_right(a)
        await source.is_right(b)
        await wait_until(lambda: source.hits(a, b))


async def test_older_data_is_not_read_before_the_restart_is_noticed(server: RestartableServer, source: Source) -> None:
    for attempt in range(5):
        keys = [f"key {attempt} {number}" for number in range(20)]
        async with (
            trusting_cache(server.url, timeout_seconds=5) as a,
            trusting_cache(server.url, timeout_seconds=5) as b,
        ):
            await asyncio.gather(*(source.get(a, key) for key in keys))
            await server.save()
            await source.write(a)
            server.kill()
            server.start()
            assert {*await asyncio.gather(*(source.get(b, key) for key in keys))} == {source.value}


async def test_a_process_that_starts_after_redis_restarted_with_older_data(
    server: RestartableServer, source: Source
) -> None:
    async with trusting_cache(server.url) as cache:
        await wait_until(lambda: source.hits(cache))
        await server.save()
        await source.write(cache)
    server.kill()
    server.start()
    async with trusting_cache(server.url) as cache:
        assert await source.get(cache) == 1


@pytest.mark.parametrize("first", ["read", "invalidation"])
async def test_redis_is_paused(server: RestartableServer, source: Source, first: str) -> None:
    async with trusting_cache(server.url) as a, trusting_cache(server.url) as b:
        await wait_until(lambda: source.hits(a, b))
        with server.paused():
            before = bus_of(a).failures
            if first == "read":
                assert await source.get(a, "another") == 0
                assert not bus_of(a).trusted
            await source.write(a)
            assert bus_of(a).failures > before
            await source.is_right(a)
            await source.write(a)
            await source.is_right(a)
            assert bus_of(a).failures < before + FEW
        await source.is_right(a)
        await wait_until(lambda: source.has_reached(b))
        await wait_until(lambda: source.hits(a, b))


async def test_a_paused_redis_delivers_no_message_and_no_process_serves_old_values(
    server: RestartableServer, source: Source
) -> None:
    async with trusting_cache(server.url) as a, trusting_cache(server.url) as b:
        await wait_until(lambda: source.hits(a, b))
        with server.paused():
            await wait_until(lambda: not bus_of(b).trusted)
            await source.write(a)
            await source.is_right(b)
        await source.is_right(b)
        await wait_until(lambda: source.hits(a, b))


async def test_an_invalidation_is_lost_on_its_way_to_redis(server: RestartableServer, source: Source) -> None:
    async with (
        FaultyWire(LOOPBACK, server.port) as wire,
        trusting_cache(wire.through(server.url)) as a,
        trusting_cache(server.url) as b,
    ):
        await wait_until(lambda: source.hits(a, b))
        wire.make_half_open()
        await source.write(a)
        await wait_until(lambda: source.has_reached(b))
        await wait_until(lambda: source.hits(a, b))


async def test_a_connection_is_half_open(server: RestartableServer, source: Source) -> None:
    async with (
        FaultyWire(LOOPBACK, server.port) as wire,
        trusting_cache(server.url) as a,
        trusting_cache(wire.through(server.url)) as b,
    ):
        await wait_until(lambda: source.hits(a, b))
        wire.drops = "all"
        await source.write(a)
        await wait_until(lambda: source.has_reached(b), TRUST_SECONDS + 0.5)
        await source.is_right(b)
        await wait_until(lambda: source.hits(a))
        await source.write(b)
        await source.is_right(b)
        wire.restore()
        await source.is_right(b)
        await wait_until(lambda: source.has_reached(a))
        await wait_until(lambda: source.hits(a, b))


async def test_a_late_heartbeat_does_not_restore_trust(server: RestartableServer, source: Source) -> None:
    async with FaultyWire(LOOPBACK, server.port) as wire, trusting_cache(wire.through(server.url)) as cache:
        await wait_until(lambda: source.hits(cache))
        wire.holds_messages = True
        await wait_until(lambda: bool(wire.held))
        wire.drops = "commands"
        await source.write(cache)
        wire.restore()
        await wait_until(lambda: source.hits(cache))


async def test_the_time_of_trust_begins_when_a_heartbeat_was_sent(
    server: RestartableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when its reply arrives: what was invalidated meanwhile may have been lost."""
    async with FaultyWire(LOOPBACK, server.port) as wire, trusting_cache(wire.through(server.url)) as cache:
        wire.holds_messages = True
        await wait_until(lambda: bool(wire.held))
        sent_before = monotonic()
        monkeypatch.setattr("plinth.cache.bus.monotonic", lambda: monotonic() + 1)  # the reply takes a second
        [(client, reply)] = wire.held
        wire.held.clear()
        client.transport.write(reply)
        await wait_until(lambda: bool(wire.held))  # of the next heartbeat
        assert bus_of(cache)._trusted_until <= sent_before + TRUST_SECONDS


async def test_a_heartbeat_from_before_the_first_read_does_not_discard_what_was_cached(
    server: RestartableServer,
) -> None:
    """There was no epoch when its command was answered, and there is one when its messages are."""
    async with FaultyWire(LOOPBACK, server.port) as wire, trusting_cache(wire.through(server.url)) as cache:
        wire.holds_messages = True
        await wait_until(lambda: bool(wire.held))
        loads = itertools.count(1)

        async def load() -> int:
            return next(loads)

        assert await cache.remember("first", 600, load, schema=int) == 1
        changes = bus_of(cache).generations.change_count
        wire.restore()
        wire.holds_messages = True
        await wait_until(lambda: bool(wire.held))  # of the next heartbeat
        assert await cache.remember("first", 600, load, schema=int) == 1
        assert bus_of(cache).generations.change_count == changes


@pytest.mark.parametrize("began", ["before the loss", "after the loss"])
async def test_a_read_joins_no_load_from_before_messages_were_missed(
    server: RestartableServer, source: Source, began: str
) -> None:
    released, started = asyncio.Event(), asyncio.Event()

    async def load() -> int:
        found = source.value
        if not started.is_set():
            started.set()
            await released.wait()
        return found

    async with (
        FaultyWire(LOOPBACK, server.port) as wire,
        trusting_cache(server.url) as a,
        trusting_cache(wire.through(server.url)) as b,
        asyncio.timeout(20),
    ):

        async def get() -> int:
            return await b.remember("slow", 600, load, schema=int, tags=[ANSWERS])

        first = asyncio.create_task(get()) if began == "before the loss" else None
        if first:
            await started.wait()
        wire.refuses = True
        wire.cut(subscribers=True)
        await wait_until(lambda: not bus_of(b).trusted)
        if first is None:
            first = asyncio.create_task(get())
            await started.wait()
        await source.write(a)
        if began == "after the loss":
            wire.refuses = False
            await wait_until(lambda: bus_of(b).trusted)
        assert await get() == 1
        released.set()
        assert await first == 0


async def test_a_reply_that_was_waiting_during_a_pause_is_not_used(
    server: RestartableServer, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stops before it reads the reply, and the value in that is invalidated meanwhile."""
    async with FaultyWire(LOOPBACK, server.port) as wire, trusting_cache(wire.through(server.url), 5) as cache:
        await source.get(cache)
        store = cache._store
        wire.replies_to_pass = 0
        reading = asyncio.create_task(store.read("key", ("name",), 60))
        await wait_until(lambda: bool(wire.held))
        monkeypatch.setattr("plinth.cache.bus.monotonic", lambda: monotonic() + TRUST_SECONDS)
        wire.restore()
        assert await reading == Lookup(None, 0.0, None)


async def test_two_servers_at_one_address_are_not_trusted(server: RestartableServer) -> None:
    """Messages of one say nothing about the entries of the other."""

    class TwoServers(FaultyWire):
        """The messages come from another server than the replies."""

        two = True

        def _received(self, end: End, data: bytes) -> bytes:
            self.run_id = b"0" * 40 if self.two and end.peer in self._subscribers else b""
            return super()._received(end, data)

    async with TwoServers(LOOPBACK, server.port) as wire:
        redis_settings = RedisSettings(url=wire.through(server.url), timeout_seconds=5)
        async with open_redis(redis_settings) as redis, open_cache(CacheSettings(namespace="test"), redis, 5) as cache:
            assert not bus_of(cache).trusted  # after the first attempt
            wire.two = False
            await wait_until(lambda: bus_of(cache).trusted)


async def test_one_process_that_loses_its_connection_costs_the_others_nothing(
    server: RestartableServer, source: Source
) -> None:
    """Nor itself, once it has read the generations again: what it has in memory is still current."""
    async with (
        FaultyWire(LOOPBACK, server.port) as wire,
        trusting_cache(server.url) as a,
        trusting_cache(wire.through(server.url)) as b,
    ):
        await wait_until(lambda: source.hits(a, b))
        loads, epoch = source.loads, bus_of(a).generations.get([])
        for _ in range(3):
            wire.cut(subscribers=True)
            await wait_until(lambda: not bus_of(b).trusted)
            await source.is_right(a)
            await wait_until(lambda: bus_of(b).trusted)
        await source.is_right(a)
        await source.is_right(b)
        assert (source.loads, bus_of(a).generations.get([])) == (loads, epoch)
        # What it could not publish is published when it is back, and nothing else.
        await a.remember("another", 600, source.load, schema=int, tags=[Tag("others")])
        wire.refuses = True
        wire.cut(subscribers=True)
        await wait_until(lambda: not bus_of(b).trusted)
        loads = source.loads
        await source.write(b)
        wire.refuses = False
        await wait_until(lambda: source.has_reached(a))
        loads = source.loads
        await a.remember("another", 600, source.load, schema=int, tags=[Tag("others")])
        assert source.loads == loads
        await wait_until(lambda: source.hits(a, b))


@pytest.mark.parametrize("names", [MAX_UNPUBLISHED // 2, MAX_UNPUBLISHED * 3])
async def test_what_was_invalidated_during_an_outage_is_invalidated_after_it(
    server: RestartableServer, source: Source, names: int
) -> None:
    """However much that was: it takes a bounded amount of memory until then."""
    async with (
        FaultyWire(LOOPBACK, server.port) as wire,
        trusting_cache(server.url) as a,
        trusting_cache(wire.through(server.url)) as b,
    ):
        await wait_until(lambda: source.hits(a, b))
        wire.refuses = True
        wire.cut(subscribers=True)
        await wait_until(lambda: not bus_of(b).trusted)
        await source.write(b)
        for number in range(names):
            await b.invalidate(f"other {number}")
        assert len(bus_of(b)._unpublished.names) <= MAX_UNPUBLISHED
        wire.refuses = False
        await wait_until(lambda: source.has_reached(a))
        await wait_until(lambda: source.hits(a, b))


async def test_a_service_that_caches_nothing_publishes_nothing(server: RestartableServer, source: Source) -> None:
    async with (
        trusting_cache(server.url) as a,
        trusting_cache(server.url) as b,
        server.client() as client,
        client.pubsub() as onlooker,
    ):
        await onlooker.psubscribe("*")
        assert (await onlooker.get_message(timeout=5))["type"] == "psubscribe"
        for _ in range(5):
            await source.write(a)
            await source.write(b)
        assert await client.keys("*") == []
        await client.publish("end", "")
        assert (await onlooker.get_message(timeout=5))["channel"] == b"end"
        await source.is_right(a)  # from here on, one of the two caches something
        await source.write(b)
        assert (await onlooker.get_message(timeout=5))["data"] == b'["answers"]'
        await wait_until(lambda: source.has_reached(a))
        await client.flushall()  # without the epoch, whose loss the next heartbeat notices
        await source.write(a)
        assert (await onlooker.get_message(timeout=5))["data"] == b'["answers"]'


async def test_a_process_that_only_listens_receives_what_is_invalidated(
    server: RestartableServer, source: Source
) -> None:
    settings = RedisSettings(url=server.url)
    async with (
        open_redis(settings) as redis,
        open_cache(CacheSettings(namespace="test"), redis, 0.5, listens=True) as a,
        trusting_cache(server.url) as b,
    ):
        await wait_until(lambda: bus_of(a).trusted)
        before = a.last_invalidation_at()
        await source.write(b)
        await wait_until(lambda: a.last_invalidation_at() > before)


async def test_numbered_databases_do_not_share_invalidations(server: RestartableServer, source: Source) -> None:
    async with trusting_cache(server.url) as a, trusting_cache(server.url.removesuffix("0") + "1") as b:
        await wait_until(lambda: source.hits(a, b))
        await b.invalidate(ANSWERS)
        before = bus_of(a).generations.change_count
        await a.invalidate("marker")  # whose message arrives after that of the other database would
        assert bus_of(a).generations.change_count > before
        assert bus_of(a).generations.get(["answers"]) is not None


async def test_an_invalidation_takes_effect_although_its_caller_was_cancelled(
    server: RestartableServer, source: Source
) -> None:
    async with trusting_cache(server.url, timeout_seconds=5) as a, trusting_cache(server.url) as b:
        await wait_until(lambda: source.hits(a, b))
        for _ in range(MAX_CONCURRENT_COMMANDS):
            await bus_of(a)._slots.acquire()
        writing = asyncio.create_task(source.write(a))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        for _ in range(MAX_CONCURRENT_COMMANDS):
            bus_of(a)._slots.release()
        await source.is_right(a)
        await wait_until(lambda: source.has_reached(b))


@pytest.mark.parametrize("foreign", ["bytes", "a list", "another value"])
async def test_a_foreign_value_is_a_miss(server: RestartableServer, source: Source, foreign: str) -> None:
    async with trusting_cache(server.url) as a, trusting_cache(server.url) as b, server.client() as client:
        await wait_until(lambda: source.hits(a))
        (key,) = await client.keys("test:entry:*")
        entry = unpack(await client.get(key))
        assert entry
        names, tokens, expires_at, _ = entry
        await client.delete(key)
        if foreign == "bytes":
            await client.set(key, b"\0\xff{[\n")
        elif foreign == "a list":
            await client.lpush(key, "foreign")
        else:
            await client.set(key, pack(Entry(None, tuple(names), tuple(tokens), expires_at, 0), b"no number"))
        loads = source.loads
        assert await source.get(b) == 0
        assert source.loads == loads + 1
        assert await source.hits(b)
        assert bus_of(b).failures == 0
        assert bus_of(b).trusted
        # The loaded value has replaced it.
        await wait_until(lambda: _holds(client, key, b"0"))


async def _holds(client: Any, key: str, value: bytes) -> bool:
    entry = unpack(await client.get(key)) if await client.type(key) == b"string" else None
    return entry is not None and entry[3] == value


async def test_foreign_generations_are_replaced_or_nothing_is_cached(server: RestartableServer, source: Source) -> None:
    async with trusting_cache(server.url) as cache, server.client() as client:
        await client.lpush("test:epoch", "foreign")
        for times in (1, 2):
            before = bus_of(cache).failures
            assert await source.get(cache) == 0
            assert source.loads == times
            assert bus_of(cache).failures > before
        await client.delete("test:epoch")
        await client.lpush("test:generation:answers", "foreign")
        await wait_until(lambda: source.hits(cache))
        await source.write(cache)
        assert await source.get(cache) == 1
        assert await source.hits(cache)


class ChangedConnection(Connection):
    """As a later redis-py may change it."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        if options.pop("push_request", None):
            raise TypeError("read_response() got an unexpected keyword argument 'push_request'")
        return await super().read_response(*args, **options)


async def test_a_redis_py_that_has_changed_inside_switches_the_cache_off(
    redis_url: str, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    pool = BlockingConnectionPool.from_url(redis_url, connection_class=ChangedConnection)
    with caplog.at_level(logging.INFO, "plinth.cache"):
        async with Redis.from_pool(pool) as redis, open_cache(CacheSettings(namespace="test"), redis, 0.5) as cache:
            for _ in range(3):
                await source.write(cache)
                await source.is_right(cache, times=3)
                await asyncio.sleep(0.1)  # meanwhile, it tries to connect again
            assert not bus_of(cache).trusted
    assert source.loads == 9
    [record] = caplog.records
    assert (record.levelname, "push_request" in str(record.exc_info)) == ("ERROR", True)
