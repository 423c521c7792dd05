"""The promises of every store: memory, Redis, and both as two levels."""

import asyncio
from time import monotonic, time
from uuid import uuid4

import pytest

from plinth.cache.bus import TRUST_SECONDS
from plinth.cache.generations import Tokens
from plinth.cache.store import Entry, Store, pack, unpack
from plinth.cache.stores import Memory, MemoryStore, RedisStore, TwoLevelStore
from plinth.settings import Settings
from tests.plinth.cache.conftest import running_bus

KEY, NAMES = "product:5", ("product:5", "products")


async def tokens(store: Store, *names: str) -> Tokens:
    found = await store.read(KEY, names or NAMES)
    assert found.tokens is not None
    return found.tokens


async def write(store: Store, value: bytes, tokens: Tokens, ttl: float = 60) -> None:
    await store.write(KEY, Entry(value, tokens, time() + ttl))


async def value(store: Store, *names: str) -> bytes | None:
    entry = (await store.read(KEY, names or NAMES)).entry
    return entry.value if entry else None


async def test_an_entry_is_read_as_it_was_written(store: Store) -> None:
    known = await tokens(store)
    assert await value(store) is None
    await write(store, b"a\nb\0", known)
    assert await value(store) == b"a\nb\0"
    assert (await store.read("product:6", NAMES)).entry is None


async def test_generations_change_by_an_invalidation_only(store: Store) -> None:
    known = await tokens(store)
    assert await tokens(store) == known
    await store.invalidate(["products"])
    changed = await tokens(store)
    [name] = [name for name in known if changed[name] != known[name]]
    assert name.endswith("products")


@pytest.mark.parametrize("name", NAMES)
async def test_an_entry_with_an_invalidated_name_is_not_served(store: Store, name: str) -> None:
    await write(store, b"old", await tokens(store))
    await store.invalidate(["product:6", "categories"])
    assert await value(store) == b"old"
    await store.invalidate([name])
    assert await value(store) is None


async def test_a_value_loaded_before_an_invalidation_and_stored_after_it_is_not_served(store: Store) -> None:
    known = await tokens(store)
    await store.invalidate(["products"])
    await write(store, b"old", known)
    assert await value(store) is None
    await write(store, b"new", await tokens(store))
    assert await value(store) == b"new"


async def test_an_entry_written_with_other_names_is_not_served(store: Store) -> None:
    await write(store, b"old", await tokens(store, "product:5"))
    assert await value(store) is None


@pytest.mark.parametrize("name", ["epoch", "", "name:products"])
async def test_no_name_collides_with_an_internal_one(store: Store, name: str) -> None:
    await write(store, b"old", await tokens(store))
    await store.invalidate([name])
    assert await value(store) == b"old"


async def test_a_claim_is_released_only_by_its_holder(store: Store) -> None:
    known = await tokens(store)
    first = await store.claim(KEY, known, 0.001)
    while not (second := await store.claim(KEY, known, 60)):
        pass
    assert first is not None
    await store.release(first)
    alone = isinstance(store, MemoryStore)  # grants every claim
    assert (await store.claim(KEY, known, 60) is None) is not alone
    assert await store.claim("product:6", known, 60)
    await store.release(second)
    assert await store.claim(KEY, known, 60)
    await store.invalidate(NAMES[:1])
    assert await store.claim(KEY, await tokens(store), 60)


async def test_an_expired_entry_is_not_served(store: Store) -> None:
    known = await tokens(store)
    await write(store, b"old", known, ttl=-1)
    assert await value(store) is None


async def test_memory_is_served_only_while_redis_is_trusted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_bus(settings, f"test-{uuid4()}") as bus:
        store = TwoLevelStore(Memory(max_entries=10, max_bytes=100_000), bus)
        await write(RedisStore(bus), b"old", await tokens(store))
        assert store.peek(KEY, NAMES) is None
        assert await value(store) == b"old"
        assert store.peek(KEY, NAMES)
        await store.invalidate(NAMES)
        await write(store, b"new", await tokens(store))
        while (entry := store.peek(KEY, NAMES)) is None:  # noqa: ASYNC110 - until its own message is back
            await asyncio.sleep(0)
        assert entry.value == b"new"
        monkeypatch.setattr("plinth.cache.bus.monotonic", lambda: monotonic() + TRUST_SECONDS)  # as after a long pause
        assert store.peek(KEY, NAMES) is None


async def test_memory_is_bounded_by_entries_and_by_bytes() -> None:
    store = Memory(max_entries=10, max_bytes=100_000)
    for number in range(20):
        store.put(str(number), Entry(b"small", {}, time() + 60))
    kept = [number for number in range(20) if store.get(str(number))]
    assert kept == [*range(10, 20)]
    store.put("large", Entry(bytes(60_000), {}, time() + 60))
    assert store.get("large")
    assert sum(bool(store.get(str(number))) for number in range(20)) <= 4


async def test_an_entry_larger_than_the_memory_is_not_kept() -> None:
    store = Memory(max_entries=10, max_bytes=10_000)
    store.put("a", Entry(b"old", {}, time() + 60))
    store.put("a", Entry(bytes(20_000), {}, time() + 60))
    assert store.get("a") is None


async def test_an_entry_is_not_served_once_its_generation_was_evicted() -> None:
    store = MemoryStore(Memory(max_entries=1, max_bytes=100_000))
    await write(store, b"old", await tokens(store))
    for number in range(10):
        await store.invalidate([str(number)])
    assert await value(store) is None


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\n",
        b"nonsense",
        b"[]\nvalue",
        b"[1,2]\nvalue",
        b'[{"a":"b"},null]\nvalue',
        b'{"a":1}\nvalue',
        b"\xff\n",
    ],
)
def test_unpacking_foreign_bytes_finds_nothing(packed: bytes) -> None:
    assert unpack(packed) is None


def test_packing_is_reversible() -> None:
    entry = Entry(b"\n\n\0", {"a": "b"}, 2.25)
    assert unpack(pack(entry)) == entry
