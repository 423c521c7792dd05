"""`remember` on every store: one load for many callers, and never a value from before an invalidation."""

import asyncio
from collections.abc import Awaitable, Callable
from time import time
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

import plinth.cache.cache
import plinth.cache.stores
from plinth.cache import Cache, Tag, open_cache, open_redis
from plinth.cache.bus import MAX_CONCURRENT_COMMANDS
from plinth.cache.entries import Caching, Deliver, Entry, Loaded
from plinth.cache.stores import Memory, MemoryStore, SharedStore
from plinth.settings import Settings
from tests.faults.redis_server import wait_until
from tests.plinth.cache.conftest import running_bus

ANSWERS = Tag("answers")


class Loader:
    """Returns 1, 2, 3, … and waits while `go_on` is not set."""

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.begun, self.cancelled = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        call = self.calls
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return call

    def let_others_pass(self) -> asyncio.Event:
        """The loads that wait go on waiting, for the event that is returned; new ones do not wait."""
        event, self.go_on = self.go_on, asyncio.Event()
        self.go_on.set()
        return event


@pytest.fixture
def load() -> Loader:
    return Loader()


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    passed = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    for module in (plinth.cache.cache, plinth.cache.stores):
        monkeypatch.setattr(module, "time", lambda: time() + passed)
    return pass_time


async def get(cache: Cache, load: Callable[[], Awaitable[Any]], **more: Any) -> Any:
    return await cache.remember("answer", 60, load, **{"schema": int, **more})


async def test_a_value_is_loaded_once(cache: Cache, load: Loader) -> None:
    assert [await get(cache, load) for _ in range(3)] == [1, 1, 1]


async def test_a_thousand_concurrent_callers_share_one_load(cache: Cache, load: Loader) -> None:
    assert set(await asyncio.gather(*(get(cache, load) for _ in range(1000)))) == {1}
    assert load.calls == 1


@pytest.mark.parametrize("name", ["answer", ANSWERS])
async def test_a_value_is_loaded_again_after_an_invalidation(cache: Cache, load: Loader, name: Tag | str) -> None:
    assert await get(cache, load, tags=[ANSWERS]) == 1
    await cache.invalidate("question", Tag("questions"))
    assert await get(cache, load, tags=[ANSWERS]) == 1
    await cache.invalidate(name)
    assert await get(cache, load, tags=[ANSWERS]) == 2


async def test_a_load_that_began_before_an_invalidation_is_for_earlier_callers_only(cache: Cache, load: Loader) -> None:
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


async def test_no_process_waits_for_a_load_that_began_before_an_invalidation(settings: Settings, load: Loader) -> None:
    namespace = f"test-{uuid4()}"
    async with asyncio.timeout(20), running_bus(settings, namespace) as one, running_bus(settings, namespace) as other:
        a, b = (Cache(SharedStore(Memory(100, 2**20), bus)) for bus in (one, other))
        load.go_on.clear()
        early = asyncio.create_task(get(a, load))
        await load.begun.wait()
        go_on = load.let_others_pass()
        for value, (writer, reader) in enumerate([(a, a), (a, b), (b, b)], 2):
            await writer.invalidate("answer")
            assert await get(reader, load) == value
        go_on.set()
        assert await early == 1
        [key] = b._store.memory.entries

        async def is_stored() -> bool:
            return (await b._store.read(key, ("answer",), 10)).packed == b"4"

        await wait_until(is_stored)
        assert [await get(cache, load) for cache in (a, b)] == [4, 4]  # the late value has not replaced the newer one
        assert load.calls == 4


async def test_a_value_is_loaded_again_when_it_has_expired(
    cache: Cache, load: Loader, pass_time: Callable[[float], None]
) -> None:
    assert await get(cache, load) == 1
    pass_time(50)
    assert await get(cache, load) == 1
    pass_time(11)
    assert await get(cache, load) == 2


async def test_values_loaded_together_expire_at_different_times(
    cache: Cache, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_caching, now = [Caching(f"{number}", ("all",), int, 10) for number in range(20)], time()
    monkeypatch.setattr(plinth.cache.cache, "time", lambda: now)
    for caching in all_caching:
        await cache.fetch(caching, lambda deliver: _load(deliver, b"1"))
    ends = {entry.expires_at for each in all_caching if (entry := store.peek(each.key, each.names))}
    assert len(ends) == len(all_caching)
    assert now + 54 <= min(ends) < max(ends) <= now + 60


async def test_an_exception_is_raised_for_all_callers_and_not_cached(cache: Cache, load: Loader) -> None:
    async def fail() -> int:
        await load()
        raise LookupError

    errors = await asyncio.gather(*(get(cache, fail) for _ in range(10)), return_exceptions=True)
    assert [type(error) for error in errors] == [LookupError] * 10
    assert load.calls == 1
    assert await get(cache, load) == 2


async def test_a_cancelled_caller_does_not_cancel_the_load_of_the_others(cache: Cache, load: Loader) -> None:
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


async def test_a_load_that_nobody_waits_for_any_more_is_cancelled(cache: Cache, load: Loader) -> None:
    """It may be a slow query, whose connection others need. Who comes next loads anew."""
    load.go_on.clear()
    callers = [asyncio.create_task(get(cache, load)) for _ in range(2)]
    await load.begun.wait()
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    following = asyncio.create_task(get(cache, load))
    await asyncio.wait(callers)
    await load.cancelled.wait()
    load.go_on.set()
    assert await following == 2


async def test_none_is_cached_for_its_own_ttl(cache: Cache, pass_time: Callable[[float], None]) -> None:
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


async def test_a_changed_schema_does_not_read_older_values(cache: Cache) -> None:
    async def before() -> Before:
        return Before(name="old")

    async def after() -> After:
        return After(name="new", size=1)

    assert await get(cache, before, schema=Before) == Before(name="old")
    assert await get(cache, after, schema=After) == After(name="new", size=1)
    assert await get(cache, before, schema=Before) == Before(name="old")


async def test_a_value_in_redis_that_cannot_be_parsed_is_loaded_again(settings: Settings) -> None:
    async with running_bus(settings, f"test-{uuid4()}") as bus:
        one, other = (SharedStore(Memory(100, 2**20), bus) for _ in range(2))
        found = await one.read("answer", ("answer",), 10)
        assert found.tokens
        one.write("answer", Entry(None, ("answer",), found.tokens, time() + 60, 0), b"no number")
        caching, loads = Caching("answer", ("answer",), int, 10), iter([b"1", b"2"])
        assert await Cache(other).fetch(caching, lambda deliver: _load(deliver, next(loads))) == (1, "miss")
        assert (await one.read("answer", ("answer",), 10)).packed == b"1"


async def _load(deliver: Deliver, value: bytes) -> None:
    deliver(Loaded(value, 60))


async def test_closing_cancels_loads(load: Loader) -> None:
    cache = Cache(MemoryStore(Memory(10, 10_000)))
    load.go_on.clear()
    waiting = asyncio.create_task(get(cache, load))
    await load.begun.wait()
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_opening_can_be_cancelled_at_any_point(settings: Settings, turns: int) -> None:
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


async def test_the_timeout_of_a_command_begins_when_it_is_sent(settings: Settings) -> None:
    async with running_bus(settings, f"test-{uuid4()}") as bus:
        for _ in range(MAX_CONCURRENT_COMMANDS):
            await bus._slots.acquire()
        bus.timeout_seconds = 0.05
        reading = asyncio.create_task(SharedStore(Memory(10, 10_000), bus).read("answer", ("answer",), 10))
        await asyncio.sleep(0.1)  # waits for a slot longer than Redis may take
        bus.timeout_seconds = 5
        for _ in range(MAX_CONCURRENT_COMMANDS):
            bus._slots.release()
        assert (await reading).tokens
        assert (bus.trusted, bus.failures) == (True, 0)
