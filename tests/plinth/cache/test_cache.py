"""`remember`, on every store: one load for many callers, and never an answer from before an invalidation."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from pydantic import BaseModel

import plinth.cache.cache
from plinth.cache import Cache, open_cache, open_redis, remembered
from plinth.cache.link import AT_ONCE
from plinth.cache.store import Entry, Store
from plinth.cache.stores import Memory, MemoryStore, RedisStore
from plinth.settings import Settings
from tests.plinth.cache.conftest import linked
from tests.plinth.cache.support import Road, opened, until


class Loader:
    """Returns 1, 2, 3, … and waits meanwhile if it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.begun = asyncio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        call = self.calls
        self.begun.set()
        await self.go_on.wait()
        return call


@pytest.fixture
def load() -> Loader:
    return Loader()


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    passed = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(plinth.cache.cache, "time", lambda: time() + passed)
    return pass_time


async def get(cache: Cache, load: Callable[[], Awaitable[Any]], **more: Any) -> Any:
    return await cache.remember("answer", 60, load, **{"schema": int, **more})


async def test_it_loads_once(cache: Cache, load: Loader) -> None:
    assert [await get(cache, load) for _ in range(3)] == [1, 1, 1]


async def test_a_thousand_at_once_load_once(cache: Cache, load: Loader) -> None:
    assert set(await asyncio.gather(*(get(cache, load) for _ in range(1000)))) == {1}
    assert load.calls == 1


@pytest.mark.parametrize("name", ["answer", "answers"])
async def test_it_loads_anew_after_an_invalidation(cache: Cache, load: Loader, name: str) -> None:
    assert await get(cache, load, tags=["answers"]) == 1
    await cache.invalidate("question")
    assert await get(cache, load, tags=["answers"]) == 1
    await cache.invalidate(name)
    assert await get(cache, load, tags=["answers"]) == 2


async def test_a_load_that_began_before_an_invalidation_is_for_those_who_asked_before(
    cache: Cache, load: Loader
) -> None:
    load.go_on.clear()
    early = asyncio.create_task(get(cache, load))
    await load.begun.wait()
    await cache.invalidate("answer")
    load.begun.clear()
    late = asyncio.create_task(get(cache, load))
    load.go_on.set()
    assert await early == 1
    assert await late == 2
    assert await get(cache, load) == 2


async def test_nobody_waits_for_a_load_from_before_an_invalidation(
    settings: Settings, load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plinth.cache.cache, "CLAIM_SECONDS", 600)
    namespace = f"test-{uuid4()}"
    async with asyncio.timeout(20), linked(settings, namespace) as one, linked(settings, namespace) as other:
        a, b = Cache(RedisStore(one)), Cache(RedisStore(other))
        load.go_on.clear()
        early = asyncio.create_task(get(a, load))
        await load.begun.wait()
        go_on, load.go_on = load.go_on, asyncio.Event()
        load.go_on.set()
        for value, (writer, reader) in enumerate([(a, a), (a, b), (b, b)], 2):
            await writer.invalidate("answer")
            assert await get(reader, load) == value
        go_on.set()
        assert await early == 1
        assert [await get(cache, load) for cache in (a, b)] == [4, 4]  # whose place it has not taken
        assert load.calls == 4


@pytest.mark.parametrize(("claims_for", "waits_for"), [(0.1, 600), (600, 0.1)])
async def test_a_loader_that_does_not_end_keeps_nobody_from_an_answer(
    settings: Settings, load: Loader, monkeypatch: pytest.MonkeyPatch, claims_for: float, waits_for: float
) -> None:
    namespace = f"test-{uuid4()}"
    async with asyncio.timeout(20), linked(settings, namespace) as one, linked(settings, namespace) as other:
        monkeypatch.setattr(plinth.cache.cache, "CLAIM_SECONDS", claims_for)
        load.go_on.clear()
        stuck = asyncio.create_task(get(Cache(RedisStore(one)), load))
        await load.begun.wait()
        monkeypatch.setattr(plinth.cache.cache, "CLAIM_SECONDS", waits_for)
        go_on, load.go_on = load.go_on, asyncio.Event()
        load.go_on.set()
        b = Cache(RedisStore(other))
        assert await asyncio.gather(*(get(b, load) for _ in range(10))) == [2] * 10
        go_on.set()
        assert await stuck == 1


async def test_who_found_nothing_looks_again_once_he_may_load(redis_url: str, load: Loader) -> None:
    address, namespace = urlsplit(redis_url), f"test-{uuid4()}"
    async with (
        Road(address.hostname or "", address.port or 6379) as road,
        opened(redis_url, 5, namespace=namespace) as a,
        opened(road.through(redis_url), 5, namespace=namespace) as b,
    ):
        road.passing = 0
        late = asyncio.create_task(get(b, load))
        await until(lambda: bool(road.held_back))
        assert await get(a, load) == 1
        road.mend()
        assert await late == 1
        assert load.calls == 1


async def test_it_loads_anew_when_its_time_is_over(
    cache: Cache, load: Loader, pass_time: Callable[[float], None]
) -> None:
    assert await get(cache, load) == 1
    pass_time(50)
    assert await get(cache, load) == 1
    pass_time(11)
    assert await get(cache, load) == 2


async def test_not_all_that_was_loaded_together_expires_together(
    cache: Cache, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, now = [f"int:{number}" for number in range(20)], time()
    monkeypatch.setattr(plinth.cache.cache, "time", lambda: now)
    for key in keys:
        await cache.fetch(key, [key], lambda: _loaded(b"1"), int)
    ends = {entry.fresh_until for key in keys if (entry := (await store.read(key, [key])).entry)}
    assert len(ends) == len(keys)
    assert now + 54 <= min(ends) < max(ends) <= now + 60


async def test_what_is_stale_is_served_while_it_is_loaded_anew(
    cache: Cache, load: Loader, pass_time: Callable[[float], None]
) -> None:
    assert await get(cache, load, stale=60) == 1
    pass_time(61)
    load.go_on.clear()
    load.begun.clear()
    assert await get(cache, load, stale=60) == 1
    await load.begun.wait()
    for _ in range(3):
        assert await get(cache, load, stale=60) == 1
        await asyncio.sleep(0)
    load.go_on.set()
    while await get(cache, load, stale=60) == 1:  # noqa: ASYNC110 - what it waits for is the point
        await asyncio.sleep(0)
    assert load.calls == 2


async def test_what_is_stale_is_not_served_for_ever(
    cache: Cache, load: Loader, pass_time: Callable[[float], None]
) -> None:
    assert await get(cache, load, stale=60) == 1
    pass_time(121)
    assert await get(cache, load, stale=60) == 2


async def test_what_was_invalidated_is_not_served_stale(
    cache: Cache, load: Loader, pass_time: Callable[[float], None]
) -> None:
    assert await get(cache, load, stale=60) == 1
    pass_time(61)
    await cache.invalidate("answer")
    assert await get(cache, load, stale=60) == 2


async def test_what_is_stale_and_cannot_be_loaded_anew_stays(
    cache: Cache, load: Loader, pass_time: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> int:
        raise LookupError("nobody there")

    assert await get(cache, load, stale=60) == 1
    pass_time(61)
    assert await get(cache, fail, stale=60) == 1
    with caplog.at_level(logging.WARNING):
        while not caplog.records:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0)
    assert "nobody there" in caplog.text
    assert await get(cache, load, stale=60) == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept(
    cache: Cache, load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> int:
        await load()
        raise LookupError("nobody there")

    monkeypatch.setattr(plinth.cache.cache, "CLAIM_SECONDS", 600)
    errors = await asyncio.gather(*(get(cache, fail) for _ in range(10)), return_exceptions=True)
    assert [type(error) for error in errors] == [LookupError] * 10
    assert load.calls == 1
    async with asyncio.timeout(10):  # its claim is given back
        assert await get(cache, load) == 2


async def test_who_leaves_does_not_take_the_answer_along(cache: Cache, load: Loader) -> None:
    load.go_on.clear()
    first = asyncio.create_task(get(cache, load))
    await load.begun.wait()
    second = asyncio.create_task(get(cache, load))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    load.go_on.set()
    assert await second == 1
    assert first.cancelled()


async def test_nothing_is_kept_only_if_asked_for_and_for_its_own_time(
    cache: Cache, pass_time: Callable[[float], None]
) -> None:
    answers = iter([None, None, None, 4])

    async def load() -> int | None:
        return next(answers)

    assert await get(cache, load, schema=int | None) is None
    assert await get(cache, load, schema=int | None, missing_ttl=5) is None
    assert await get(cache, load, schema=int | None, missing_ttl=5) is None
    pass_time(6)
    assert await get(cache, load, schema=int | None, missing_ttl=5) is None
    await cache.invalidate("answer")
    assert await get(cache, load, schema=int | None, missing_ttl=5) == 4


class Before(BaseModel):
    name: str


class After(BaseModel):
    name: str
    size: int = 0


async def test_another_schema_never_reads_what_this_one_wrote(cache: Cache) -> None:
    async def before() -> Before:
        return Before(name="old")

    async def after() -> After:
        return After(name="new", size=1)

    assert await get(cache, before, schema=Before) == Before(name="old")
    assert await get(cache, after, schema=After) == After(name="new", size=1)
    assert await get(cache, before, schema=Before) == Before(name="old")


async def test_what_cannot_be_read_is_loaded_anew(cache: Cache, store: Store, load: Loader) -> None:
    async def read(value: bytes) -> int:
        return await cache.fetch("answer", ["answer"], lambda: _loaded(value), int)

    found = await store.read("answer", ["answer"])
    assert found.generations is not None
    much_later = time() + 60
    await store.write("answer", Entry(b"nonsense", found.generations, much_later, much_later))
    assert await read(b"1") == 1
    assert await read(b"2") == 1


async def _loaded(value: bytes) -> plinth.cache.cache.Loaded:
    return plinth.cache.cache.Loaded(value, 60)


async def test_what_was_not_loaded_when_it_closes_is_given_up(load: Loader) -> None:
    cache = Cache(MemoryStore(Memory(10, 10_000)))
    load.go_on.clear()
    waiting = asyncio.create_task(get(cache, load))
    await load.begun.wait()
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


class Shop:
    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.asked: list[tuple[str, int]] = []

    @remembered("shop:{name}:{page}", ttl=60, tags=["shops:{name}"])
    async def items(self, name: str, page: int = 1) -> list[str]:
        self.asked.append((name, page))
        return [f"{name} {page}"]


async def test_a_method_can_be_remembered(cache: Cache) -> None:
    shop = Shop(cache)
    assert await shop.items("a") == await shop.items(name="a", page=1) == ["a 1"]
    assert await shop.items("a", 2) == ["a 2"]
    assert await shop.items("a:2", 1) == ["a:2 1"]  # is not the key of ("a", 2)
    assert shop.asked == [("a", 1), ("a", 2), ("a:2", 1)]
    await cache.invalidate("shops:a")
    await shop.items("a", 2)
    await shop.items("a:2")
    assert shop.asked[3:] == [("a", 2)]


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_its_opening_can_be_given_up_at_any_moment(settings: Settings, turns: int) -> None:
    async def open_and_wait() -> None:
        async with open_redis(settings.redis) as redis, open_cache(settings.cache, redis, timeout_seconds=1):
            await asyncio.Event().wait()

    opening = asyncio.create_task(open_and_wait())
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([opening])
    assert opening.cancelled()


async def test_to_wait_for_ones_turn_is_not_to_wait_for_redis(settings: Settings) -> None:
    async with linked(settings, f"test-{uuid4()}") as link:
        for _ in range(AT_ONCE):
            await link._slots.acquire()
        link.timeout_seconds = 0.05
        reading = asyncio.create_task(RedisStore(link).read("answer", ["answer"]))
        await asyncio.sleep(0.1)  # longer than Redis may take
        link.timeout_seconds = 5
        for _ in range(AT_ONCE):
            link._slots.release()
        assert (await reading).generations
        assert (link.trusted, link.failures) == (True, 0)
