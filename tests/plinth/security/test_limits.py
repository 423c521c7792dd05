"""How requests are counted: in Redis for all workers, and by each worker's share while Redis is away."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.cache import RedisSettings, open_redis
from plinth.security import Limits, LimitSettings
from plinth.security.limits import RETRY_SECONDS, LocalLimit
from plinth.security.settings import Limit, parse_limit
from plinth.testing.environment import ROOT
from plinth.testing.network import reserved_port
from plinth.testing.wire import WireRedis
from tests.faults.proxy import Proxy
from tests.plinth.cache.support import FaultyWire
from tests.plinth.security.counter import LIMIT, NOON

WARNING = "each worker accepts its share"


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def redis_wire(redis_url: str) -> AsyncIterator[FaultyWire]:
    address = urlsplit(redis_url)
    async with FaultyWire(address.hostname or "", address.port or 6379) as wire:
        yield wire


@asynccontextmanager
async def shared(url: str, clock: Clock, timeout_seconds: float = 20, **options: Any) -> AsyncIterator[Limits]:
    options = {"namespace": f"test-{uuid4()}", "workers": 4, **options}
    async with open_redis(RedisSettings(url=url, timeout_seconds=timeout_seconds)) as redis:
        yield Limits(LimitSettings(), redis, timeout_seconds=timeout_seconds, clock=clock, **options)


async def accepted(limits: Limits, requests: int, limit: Limit = LIMIT, key: str = "ada") -> int:
    """How many of so many requests at the same time are accepted."""
    quotas = await asyncio.gather(*(limits.count("test", limit, key) for _ in range(requests)))
    return sum(quota.remaining >= 0 for quota in quotas)


async def test_of_many_at_once_in_two_processes_as_many_are_accepted_as_the_limit_says(
    redis_url: str, clock: Clock
) -> None:
    namespace = f"test-{uuid4()}"
    command = [sys.executable, "-m", "tests.plinth.security.counter", redis_url, namespace, "150"]
    workers = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE) for _ in range(2)
    ]
    async with shared(redis_url, clock, namespace=namespace) as limits:
        here = await accepted(limits, 20)
    there = [int((await worker.communicate())[0]) for worker in workers]
    assert here + sum(there) == LIMIT.amount


async def test_two_storages_share_one_limit(redis_url: str, clock: Clock) -> None:
    namespace = f"test-{uuid4()}"
    async with (
        shared(redis_url, clock, namespace=namespace) as one,
        shared(redis_url, clock, namespace=namespace) as other,
    ):
        counts = await asyncio.gather(accepted(one, 80), accepted(other, 80))
        assert sum(counts) == LIMIT.amount
        assert await accepted(other, 1, key="grace") == 1
        quota = await one.count("elsewhere", LIMIT, "ada")
        assert (quota.remaining, quota.reset_seconds) == (99, 3600 - NOON % 3600)
        clock.now += 3600
        assert await accepted(one, 150) == LIMIT.amount


async def test_another_service_on_the_same_redis_has_limits_of_its_own(redis_url: str, clock: Clock) -> None:
    async with shared(redis_url, clock) as one, shared(redis_url, clock) as other:
        assert [await accepted(one, 150), await accepted(other, 150)] == [100, 100]


async def test_a_request_takes_one_round_trip(redis_url: str, clock: Clock) -> None:
    address = urlsplit(redis_url)
    async with (
        WireRedis(address.hostname or "", address.port or 6379) as redis_wire,
        shared(redis_wire.through(redis_url), clock) as limits,
    ):
        await accepted(limits, 1)  # connects, and loads the script once in the server's life
        for key, allowed in (("ada", 1), ("grace", 1)):
            with redis_wire.counting() as count:
                assert await accepted(limits, 1, key=key) == allowed
            assert (count.commands, count.round_trips, count.connections) == (["EVALSHA"], 1, 0)


async def test_counters_in_redis_expire(redis_url: str, clock: Clock) -> None:
    namespace = f"test-{uuid4()}"
    async with (
        shared(redis_url, clock, namespace=namespace) as limits,
        open_redis(RedisSettings(url=redis_url)) as redis,
    ):
        await limits.count("test", Limit(5, 60), "ada@example.com")
        assert redis is not None
        [key] = [key async for key in redis.scan_iter(f"{namespace}*")]
        assert b"ada" not in key
        assert 60 <= await redis.ttl(key) <= 120


async def test_without_redis_each_worker_accepts_its_share(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(LimitSettings(), None, namespace="test", workers=4, timeout_seconds=1, clock=clock)
    assert await accepted(limits, 150) == 25
    assert await accepted(limits, 1) == 0
    assert await accepted(limits, 10, Limit(2, 60), "grace") == 1  # a share is never nothing
    clock.now += 3600
    assert await accepted(limits, 150) == 25
    assert caplog.records == []


async def settled(wire: FaultyWire) -> int:
    """The activity when all that was sent has arrived: requests that ran into their timeout may just have connected."""
    activity = -1
    while activity != (activity := wire.activity):  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.05)
    return activity


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
async def test_while_redis_is_away_each_worker_accepts_its_share(
    fault: str, redis_url: str, redis_wire: FaultyWire, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "plinth.security")
    async with shared(redis_wire.through(redis_url), clock, timeout_seconds=0.5) as limits:
        assert sum([await accepted(limits, 1) for _ in range(10)]) == 10
        if fault == "refuses":
            redis_wire.refuses = True
            redis_wire.cut(subscribers=True)
        else:
            redis_wire.drops = "all"
        async with asyncio.timeout(10):  # not 50 times the timeout
            assert await accepted(limits, 50) == 25
        assert caplog.text.count(WARNING) == 1
        activity = await settled(redis_wire)
        assert await accepted(limits, 50) == 0
        assert await settled(redis_wire) == activity, "Redis is not tried again by each request"
        clock.now += RETRY_SECONDS
        assert await accepted(limits, 50) == 0
        redis_wire.restore()
        clock.now += RETRY_SECONDS
        assert sum([await accepted(limits, 1) for _ in range(200)]) == 100 - 10
        assert caplog.text.count(WARNING) == 1
        assert caplog.text.count("again") == 1


async def test_a_request_that_is_cancelled_does_not_break_the_next(redis_url: str, clock: Clock) -> None:
    async with shared(redis_url, clock) as limits:
        for _ in range(30):
            task = asyncio.create_task(limits.count("test", LIMIT, "ada"))
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await accepted(limits, 200, key="grace") == 100


REQUESTS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 25)), max_size=60)


@given(REQUESTS, st.integers(1, 12), st.integers(1, 10), st.integers(1, 4), st.floats(0, 1e9))
def test_windows_are_as_in_a_simple_model(
    requests: list[tuple[str, float]], amount: int, seconds: int, workers: int, start: float
) -> None:
    clock = Clock(start)
    limit = LocalLimit("test", Limit(amount, seconds), workers, clock)
    counts: dict[tuple[str, int], int] = {}
    for key, wait in requests:
        clock.now += wait
        place = key, int(clock.now // seconds)
        counts[place] = counts.get(place, 0) + 1
        remaining = limit.count(key)
        assert remaining == max(1, amount // workers) - counts[place]
        reset = limit.quota(remaining).reset_seconds
        assert 1 <= reset <= seconds
        assert (clock.now + reset) // seconds > clock.now // seconds, "a client that waits is in the next window"


def test_of_too_many_keys_the_one_that_was_not_used_for_longest_is_forgotten(clock: Clock) -> None:
    limit = LocalLimit("test", Limit(10, 60), 1, clock, keys=100)
    limit.count("ada")
    for number in range(10_000):
        limit.count(str(number))
        if number % 50 == 0:
            limit.count("grace")
        assert len(limit._counted) <= 100
    assert limit.count("ada") == 9
    assert limit.count("grace") < 0


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("600/minute", Limit(600, 60)),
        ("20 per 5 minutes", Limit(20, 300)),
        ("1/Day", Limit(1, 86_400)),
        ("off", None),
        (" OFF ", None),
        ("", None),
    ],
)
def test_a_limit_is_a_text(text: str, limit: Limit | None) -> None:
    assert parse_limit(text) == limit


WRONG = ["600", "600/fortnight", "minute", "-1/minute", "0/minute", "1.5/minute", "1/minute;2/hour"]
WRONG += ["9999999999/minute", "1/99 days", f"1/{'9' * 30} days", "1/minute or so", "off/minute"]


@pytest.mark.parametrize("text", WRONG)
def test_another_text_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="must look like `600/minute`"):
        parse_limit(text)


async def test_a_server_that_ends_each_connection_at_once_is_none(clock: Clock) -> None:
    """As a proxy does whose Redis is down. uvloop raises RuntimeError where redis-py writes to such a connection."""
    with reserved_port() as nobody, Proxy(nobody) as proxy:
        async with shared(f"redis://127.0.0.1:{proxy.port}/0", clock, timeout_seconds=5) as limits:
            for _ in range(500):
                clock.now += LIMIT.seconds
                assert (await limits.count("test", LIMIT, "ada")).remaining >= 0
