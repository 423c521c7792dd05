"""What every store promises: memory, Redis, and both as two levels."""

import asyncio
from time import monotonic, time
from uuid import uuid4

import pytest

from plinth.cache.link import TRUST_SECONDS
from plinth.cache.store import Entry, Generations, Store, pack, unpack
from plinth.cache.stores import Memory, MemoryStore, RedisStore, TwoLevelStore
from plinth.settings import Settings
from tests.plinth.cache.conftest import linked

KEY, NAMES = "product:5", ("product:5", "products")


async def generations(store: Store, *names: str) -> Generations:
    found = await store.read(KEY, names or NAMES)
    assert found.generations is not None
    return found.generations


async def write(store: Store, value: bytes, known: Generations, kept_for: float = 60) -> None:
    await store.write(KEY, Entry(value, known, time() - 1, time() + kept_for))


async def value(store: Store, *names: str) -> bytes | None:
    entry = (await store.read(KEY, names or NAMES)).entry
    return entry.value if entry else None


async def test_what_was_written_is_read(store: Store) -> None:
    known = await generations(store)
    assert await value(store) is None
    await write(store, b"a\nb\0", known)
    assert await value(store) == b"a\nb\0"
    assert (await store.read("product:6", NAMES)).entry is None


async def test_generations_stay_until_they_are_changed(store: Store) -> None:
    known = await generations(store)
    assert await generations(store) == known
    await store.invalidate(["products"])
    changed = await generations(store)
    [name] = [name for name in known if changed[name] != known[name]]
    assert name.endswith("products")


@pytest.mark.parametrize("name", NAMES)
async def test_what_has_an_invalidated_name_is_not_served(store: Store, name: str) -> None:
    await write(store, b"old", await generations(store))
    await store.invalidate(["product:6", "categories"])
    assert await value(store) == b"old"
    await store.invalidate([name])
    assert await value(store) is None


async def test_what_was_loaded_before_an_invalidation_and_stored_after_it_is_not_served(store: Store) -> None:
    known = await generations(store)
    await store.invalidate(["products"])
    await write(store, b"old", known)
    assert await value(store) is None
    await write(store, b"new", await generations(store))
    assert await value(store) == b"new"


async def test_what_was_written_with_other_names_is_not_served(store: Store) -> None:
    await write(store, b"old", await generations(store, "product:5"))
    assert await value(store) is None


@pytest.mark.parametrize("name", ["epoch", "", "name:products"])
async def test_nobody_can_name_what_is_named_within(store: Store, name: str) -> None:
    await write(store, b"old", await generations(store))
    await store.invalidate([name])
    assert await value(store) == b"old"


async def test_only_who_holds_a_claim_gives_it_back(store: Store) -> None:
    known = await generations(store)
    first = await store.claim(KEY, known, 0.001)
    while not (second := await store.claim(KEY, known, 60)):
        pass
    assert first is not None
    await store.release(first)
    alone = isinstance(store, MemoryStore)  # where all claims are granted
    assert (await store.claim(KEY, known, 60) is None) is not alone
    assert await store.claim("product:6", known, 60)
    await store.release(second)
    assert await store.claim(KEY, known, 60)
    await store.invalidate(NAMES[:1])
    assert await store.claim(KEY, await generations(store), 60)


async def test_what_may_be_kept_no_longer_is_gone(store: Store) -> None:
    known = await generations(store)
    await write(store, b"old", known, kept_for=-1)
    assert await value(store) is None


async def test_what_is_in_memory_is_served_only_while_redis_is_trusted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(settings, f"test-{uuid4()}") as link:
        store = TwoLevelStore(Memory(max_entries=10, max_bytes=100_000), link)
        await write(RedisStore(link), b"old", await generations(store))
        assert store.peek(KEY, NAMES) is None
        assert await value(store) == b"old"
        assert store.peek(KEY, NAMES)
        await store.invalidate(NAMES)
        await write(store, b"new", await generations(store))
        while (entry := store.peek(KEY, NAMES)) is None:  # noqa: ASYNC110 - until it hears of what it told
            await asyncio.sleep(0)
        assert entry.value == b"new"
        monkeypatch.setattr("plinth.cache.link.monotonic", lambda: monotonic() + TRUST_SECONDS)  # as after a long pause
        assert store.peek(KEY, NAMES) is None


async def test_memory_holds_so_many_entries_and_so_many_bytes() -> None:
    store = Memory(max_entries=10, max_bytes=100_000)
    for number in range(20):
        store.put(str(number), Entry(b"small", {}, time() + 60, time() + 60))
    kept = [number for number in range(20) if store.get(str(number))]
    assert kept == [*range(10, 20)]
    store.put("large", Entry(bytes(60_000), {}, time() + 60, time() + 60))
    assert store.get("large")
    assert sum(bool(store.get(str(number))) for number in range(20)) <= 4


async def test_memory_does_without_what_is_larger_than_itself() -> None:
    store = Memory(max_entries=10, max_bytes=10_000)
    store.put("a", Entry(b"old", {}, time() + 60, time() + 60))
    store.put("a", Entry(bytes(20_000), {}, time() + 60, time() + 60))
    assert store.get("a") is None


async def test_memory_that_forgets_a_generation_does_not_serve_what_had_it() -> None:
    store = MemoryStore(Memory(max_entries=1, max_bytes=100_000))
    await write(store, b"old", await generations(store))
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
        b"[1,2,3]\nvalue",
        b'[{"a":"b"},null,1]\nvalue',
        b'{"a":1}\nvalue',
        b"\xff\n",
    ],
)
def test_what_nobody_here_has_packed_is_nothing(packed: bytes) -> None:
    assert unpack(packed) is None


def test_what_was_packed_comes_out_as_it_was() -> None:
    entry = Entry(b"\n\n\0", {"a": "b"}, 1.5, 2.25)
    assert unpack(pack(entry)) == entry
