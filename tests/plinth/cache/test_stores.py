"""The promises of both stores, and what they take in memory and leave in Redis."""

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Callable
from time import monotonic, time
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from plinth.cache import Cache, Tag
from plinth.cache.bus import TRUST_SECONDS
from plinth.cache.cached import build, unpack
from plinth.cache.cached import pack as pack_response
from plinth.cache.entries import Caching, Deliver, Entry, Loaded, pack
from plinth.cache.entries import unpack as unpack_entry
from plinth.cache.generations import Tokens
from plinth.cache.stores import Memory, MemoryStore, SharedStore
from plinth.settings import Settings
from tests.faults.redis_server import wait_until
from tests.plinth.cache.conftest import running_bus

KEY, NAMES = "product:5", ("product:5", "products")


async def tokens(store: MemoryStore, *names: str) -> Tokens:
    found = await store.read(KEY, names or NAMES, 60)
    assert found.tokens is not None
    return found.tokens


def write(store: MemoryStore, value: bytes, tokens: Tokens, names: tuple[str, ...] = NAMES, ttl: float = 60) -> None:
    store.write(KEY, Entry(value, names, tokens, time() + ttl, len(value)), value)


async def value(store: MemoryStore, *names: str) -> bytes | None:
    """From Redis where it is there."""
    entry = store.peek(KEY, names or NAMES)
    found = await store.read(KEY, names or NAMES, 60)
    return found.packed or (entry.value if entry else None)


async def test_an_entry_is_read_as_it_was_written(store: MemoryStore) -> None:
    known = await tokens(store)
    assert await value(store) is None
    write(store, b"a\nb\0", known)
    assert await value(store) == b"a\nb\0"
    assert store.peek("product:6", NAMES) is None
    assert (await store.read("product:6", NAMES, 60)).packed is None


async def test_generations_change_by_an_invalidation_only(store: MemoryStore) -> None:
    known = await tokens(store)
    assert await tokens(store) == known
    await store.invalidate(("products",))
    changed = await tokens(store)
    assert [changed[place] == known[place] for place in range(3)] == [True, True, False]


@pytest.mark.parametrize("name", NAMES)
async def test_an_entry_with_an_invalidated_name_is_not_served(store: MemoryStore, name: str) -> None:
    write(store, b"old", await tokens(store))
    await store.invalidate(("product:6", "categories"))
    assert await value(store) == b"old"
    await store.invalidate((name,))
    assert await value(store) is None


async def test_a_value_loaded_before_an_invalidation_and_stored_after_it_is_not_served(store: MemoryStore) -> None:
    known = await tokens(store)
    await store.invalidate(("products",))
    write(store, b"old", known)
    assert await value(store) is None
    write(store, b"new", await tokens(store))
    write(store, b"old", known)
    assert await value(store) == b"new"
    if isinstance(store, SharedStore):  # the late one has not taken its place for the other processes
        assert (await store.read(KEY, NAMES, 60)).packed == b"new"


async def test_an_entry_written_with_other_names_is_not_served(store: MemoryStore) -> None:
    write(store, b"old", await tokens(store, "product:5"), ("product:5",))
    assert await value(store, "product:5") == b"old"
    assert await value(store) is None


@pytest.mark.parametrize("name", ["epoch", "", "name:products", "entry:product:5"])
async def test_no_name_collides_with_an_internal_one(store: MemoryStore, name: str) -> None:
    write(store, b"old", await tokens(store))
    await store.invalidate((name,))
    assert await value(store) == b"old"


async def test_an_expired_entry_is_not_served(store: MemoryStore) -> None:
    write(store, b"old", await tokens(store), ttl=-1)
    assert await value(store) is None


async def test_a_clock_that_is_set_back_prolongs_no_entry(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.cache.stores.time", lambda: time() + 3600)
    known = await tokens(store)
    store.write(KEY, Entry(b"a", NAMES, known, time() + 3660, 1), b"a")
    assert store.peek(KEY, NAMES) is not None
    monkeypatch.setattr("plinth.cache.stores.time", time)
    assert store.peek(KEY, NAMES) is None
    if isinstance(store, SharedStore):  # what is read from Redis has as long as it has there
        await wait_until(lambda: _has(store))
        assert (await store.read(KEY, NAMES, 60)).expires_at <= time() + 60


async def _has(store: MemoryStore) -> bool:
    return (await store.read(KEY, NAMES, 60)).packed is not None


async def test_a_store_that_keeps_nothing_has_generations_for_the_replica() -> None:
    store = MemoryStore(Memory(10, 100_000), keeps=False)
    write(store, b"old", await tokens(store))
    assert await value(store) is None


async def test_memory_is_served_only_while_redis_is_trusted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_bus(settings, f"test-{uuid4()}") as bus:
        store = SharedStore(Memory(max_entries=10, max_bytes=100_000), bus)
        write(store, b"new", await tokens(store))
        assert store.peek(KEY, NAMES)
        monkeypatch.setattr("plinth.cache.bus.monotonic", lambda: monotonic() + TRUST_SECONDS)  # as after a long pause
        assert store.peek(KEY, NAMES) is None


async def test_a_lost_connection_loses_no_entry_that_is_still_current(settings: Settings) -> None:
    async with running_bus(settings, f"test-{uuid4()}") as bus:
        store = SharedStore(Memory(max_entries=10, max_bytes=100_000), bus)
        write(store, b"kept", await tokens(store))
        bus._disconnect()
        assert store.peek(KEY, NAMES) is None
        await wait_until(lambda: bus.trusted)
        assert store.peek(KEY, NAMES) is None
        await tokens(store)
        assert store.peek(KEY, NAMES)


async def test_a_read_that_overtakes_an_invalidation_restores_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent after the process forgot the generation, and answered before Redis deleted that."""
    async with running_bus(settings, f"test-{uuid4()}") as bus:
        store = SharedStore(Memory(max_entries=10, max_bytes=100_000), bus)
        known = await tokens(store)
        write(store, b"old", known)

        async def publish(names: object) -> None:
            bus.generations.observe(NAMES, known, bus.generations.change_count)
            assert store.peek(KEY, NAMES)

        monkeypatch.setattr(bus, "_publish", publish)  # and its message is not back yet
        await store.invalidate(("products",))
        assert store.peek(KEY, NAMES) is None


SHAPES: dict[str, Callable[[int], tuple[str, tuple[str, ...], bytes]]] = {
    "tiny": lambda n: (f"k{n}", (f"t{n}",), b"1"),
    "many names": lambda n: (f"k{n}", tuple(f"tag {n} {each}" for each in range(20)), b"1"),
    "long keys": lambda n: (f"{n}" + "k" * 900, (f"{n}" + "t" * 900,), b"1"),
    "large": lambda n: (f"k{n}", ("all",), bytes(50_000)),
    "larger than all": lambda n: (f"k{n}", ("all",), bytes(2_000_000)),
    "names larger than their share": lambda n: (f"k{n}", (f"{n}" + "t" * 200_000,), b"1"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["values", "responses"])
async def test_memory_takes_no_more_than_its_bytes(shape: str, kind: str) -> None:
    """All copies: entries, as they are used, their names and generations, and the URLs that lead to them."""
    limit = 2**20
    tracemalloc.start()
    store = MemoryStore(Memory(max_entries=100_000, max_bytes=limit))
    cache = Cache(store)
    headers = [(b"content-type", b"application/json"), (b"etag", b'"1.23456789"'), (b"cache-control", b"public")]
    headers += [(f"x-{each}".encode(), b"value") for each in range(10)]

    async def load(deliver: Deliver) -> None:
        body = SHAPES[shape](number)[2]
        if kind == "values":
            deliver(Loaded(body, 600))
            return
        response = build(200, [*headers], random.randbytes(len(body)), 4, 1000)  # which compresses badly
        deliver(Loaded(pack_response(response), 600, response))

    before = tracemalloc.get_traced_memory()[0]
    for number in range(1000 if shape in {"tiny", "many names", "long keys"} else 3 if "than" in shape else 30):
        key, names, _ = SHAPES[shape](number)
        caching = Caching(key, names, bytes if kind == "values" else unpack, 1)
        value, _ = await cache.fetch(caching, load)
        if kind == "responses":
            value._gzip()  # as for a client that accepts it
    del value, key, names, caching, _
    await asyncio.sleep(0)  # the last load ends
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown <= limit, f"{grown / limit:.2f} of the limit"
    assert "larger" in shape or grown > limit / 50, "nothing is kept"


def test_the_shares_of_memory_are_no_more_than_all_of_it() -> None:
    for limit in (2**20, 32 * 2**20):
        memory = Memory(max_entries=100, max_bytes=limit)
        assert memory.entries.maxsize + memory.urls.maxsize + memory.max_name_bytes <= limit


async def test_memory_is_bounded_by_entries_too() -> None:
    store = MemoryStore(Memory(max_entries=10, max_bytes=2**20))
    for number in range(30):
        known = (await store.read(f"{number}", ("all",), 60)).tokens
        assert known
        store.keep(f"{number}", Entry(b"", ("all",), known, time() + 60, 0))
    assert [number for number in range(30) if store.peek(f"{number}", ("all",))] == [*range(20, 30)]


@pytest.mark.parametrize("packed", [b"", b"\n", b"nonsense", b"[]\nvalue", b"[1,2,3]\nvalue", b"\xff\n"])
def test_unpacking_foreign_bytes_finds_nothing(packed: bytes) -> None:
    assert unpack_entry(packed) is None


def test_packing_is_reversible() -> None:
    assert unpack_entry(pack(Entry(None, ("a",), ("e", "b"), 2.25, 0), b"\n\n\0")) == (
        ["a"],
        ["e", "b"],
        2.25,
        b"\n\n\0",
    )


async def test_no_key_in_redis_outlives_what_depends_on_it(settings: Settings, redis_url: str) -> None:
    namespace = f"test-{uuid4()}"
    async with running_bus(settings, namespace) as bus, Redis.from_url(redis_url) as redis:
        cache = Cache(SharedStore(Memory(100, 2**20), bus))
        tag = Tag("item:{id}")

        async def lifetimes() -> list[float]:
            return [await redis.pttl(key) / 1000 async for key in redis.scan_iter(f"{namespace}:*", 1000)]

        for number in range(50):  # a walk over ids that do not exist

            async def load() -> None:
                return None

            await cache.remember(f"{number}", 3600, load, schema=int | None, tags=[tag(number)], missing_ttl=2)
        await wait_until(lambda: _is_stored(redis, namespace, 50))
        assert 0 < min(await lifetimes()) <= max(await lifetimes()) <= 2

        async def load_one() -> int:
            return 1

        await cache.remember("one", 600, load_one, schema=int, tags=[tag(0)])
        await wait_until(lambda: _is_stored(redis, namespace, 51))
        long = sorted(await lifetimes())[-4:]  # the entry, its two names, and the epoch
        assert 500 < long[0] <= long[-1] <= 600
        assert sorted(await lifetimes())[-5] <= 2
        for number in range(100):  # of which nothing is cached
            await cache.invalidate(tag(1000 + number))
        assert len(await lifetimes()) <= 3 * 51 + 1
        await redis.delete(*[key async for key in redis.scan_iter(f"{namespace}:*", 1000)])


async def test_a_generation_lives_for_the_longest_load_that_reads_it(settings: Settings, redis_url: str) -> None:
    """Or what a slow load finds after a quick one could never be stored."""
    namespace = f"test-{uuid4()}"
    async with running_bus(settings, namespace) as bus, Redis.from_url(redis_url) as redis:
        store = SharedStore(Memory(100, 2**20), bus)
        for seconds, least in ((1, 0), (60, 50), (1, 50)):
            await store.read(KEY, NAMES, seconds)
            lifetimes = [await redis.pttl(key) / 1000 for key in bus.keys.generations(NAMES)]
            assert least < min(lifetimes) <= max(lifetimes) <= 60
        await redis.delete(*bus.keys.generations(NAMES))


async def _is_stored(redis: object, namespace: str, count: int) -> bool:
    return len([key async for key in redis.scan_iter(f"{namespace}:entry:*", 1000)]) == count  # type: ignore[attr-defined]
