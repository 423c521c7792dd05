"""Random operations on two caches that share a Redis, in the orders that slow loads and a bad network bring about.

The promise: once `invalidate` has returned, no read that begins through the same cache returns what is older than what
was committed before; nor does one through another cache, once that has heard of it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import create_async_engine

import plinth.cache.cache
import plinth.cache.link
import plinth.cache.stores
from plinth.cache import Cache
from plinth.cache.link import Link
from plinth.database.sessions import Sessions
from tests.plinth.cache.support import Road, link_of, opened

KEYS = ["a", "b", "c"]  # and room for two of them
TTL = 10.0
# No statement is executed, so that nothing connects: what is committed is the model's.
NO_DATABASE = Sessions(create_async_engine("postgresql+asyncpg://"))


@dataclass
class Node:
    """A process, as it were."""

    cache: Cache
    link: Link
    road: Road
    least: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    """The oldest versions that a read that begins now may return."""


class FailedError(Exception):
    """A load or a transaction has failed."""

    def __init__(self, step: int) -> None:
        self.step = step


@dataclass
class World:
    nodes: list[Node]
    redis: Redis
    namespace: str
    clock: list[float]
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    """The database: what is committed."""
    step: int = 0
    loads: int = 0
    holding: bool = True
    held: list[asyncio.Event] = field(default_factory=list)

    async def read(self, at: int, key: str, stale: float = 0, hold: bool = False, fail: bool = False) -> int | None:
        node, began = self.nodes[at], self.step
        least = node.least[key]
        # Its load may have failed already: it ends when Redis has heard that the claim is given back.
        joins = any(name.endswith(f":{key}") and not flight.task.done() for name, flight in node.cache._flights.items())

        async def load() -> int:
            self.loads += 1
            version = self.versions[key]
            if hold and self.holding:
                self.held.append(go_on := asyncio.Event())
                await go_on.wait()
            if fail:
                raise FailedError(self.step)
            return version

        try:
            version = await node.cache.remember(key, TTL, load, schema=int, tags=["all"], stale=stale)
        except FailedError as failed:
            assert failed.step >= began or joins, "a failure was kept"  # noqa: PT017 - most do not fail
            return None
        assert least <= version <= self.versions[key], f"{key} in cache {at}, since step {began}"
        return version

    async def write(self, at: int, key: str, name: str | None = None) -> None:
        async with NO_DATABASE.begin() as session:
            session.after_commit(partial(self.nodes[at].cache.invalidate, name or key))
            self.versions[key] += 1
            committed = {key: self.versions[key]} if name is None else {**self.versions}
        self.promise(self.nodes[at], committed)

    async def roll_back(self, at: int, key: str) -> None:
        marker = f"rolled back {uuid4()}"
        with suppress(FailedError):
            async with NO_DATABASE.begin() as session:
                session.after_commit(partial(self.nodes[at].cache.invalidate, key, marker))
                raise FailedError(self.step)
        assert not await self.redis.exists(f"{self.namespace}:generation:name:{marker}")

    def promise(self, node: Node, versions: Mapping[str, int]) -> None:
        for key, version in versions.items():
            node.least[key] = max(node.least[key], version)

    async def go_on(self) -> None:
        """The load that is held longest is not any more."""
        if self.held:
            self.held.pop(0).set()

    async def hear(self) -> None:
        """All are told of all that was invalidated; loads that are held stay so."""
        for node in self.nodes:
            node.road.mend()
        promised = [{**node.least} for node in self.nodes]
        async with asyncio.timeout(20):
            for node, other in (self.nodes, self.nodes[::-1]):
                marker = f"marker {uuid4()}"
                while other.link.names.generations([marker]) is None:
                    while not (node.link.trusted and other.link.trusted):  # noqa: ASYNC110 - there is no event
                        await asyncio.sleep(0.001)
                    await node.link.invalidate([marker])
                    await self.quiet()
        for node, versions in zip(self.nodes, promised[::-1], strict=True):
            self.promise(node, versions)

    async def slow_answers(self, at: int, passing: int) -> None:
        self.nodes[at].road.passing = passing

    async def silence(self, at: int, what: str) -> None:
        self.nodes[at].road.silent = what

    async def slow_messages(self, at: int) -> None:
        self.nodes[at].road.holds_messages = True

    async def mend(self, at: int) -> None:
        self.nodes[at].road.mend()

    async def cut(self, at: int, listeners: bool = False, close: bool = False) -> None:
        self.nodes[at].road.closed = close
        self.nodes[at].road.cut(listeners)

    async def forget(self, what: str = "*") -> None:
        """Redis loses what it had: all, as by FLUSHALL, or some, as by an eviction."""
        if keys := [key async for key in self.redis.scan_iter(f"{self.namespace}:{what}", 1000)]:
            await self.redis.delete(*keys)

    async def crowd(self, at: int) -> None:
        """So many names that no others are remembered."""
        await self.nodes[at].cache.invalidate(*(f"other {number}" for number in range(10)))

    async def wait(self, seconds: float) -> None:
        self.clock[0] += seconds

    async def quiet(self) -> None:
        """Until nothing moves: whoever is not done waits for what is held back."""
        calm = 0
        while calm < 3:
            before = self.loads, [node.road.carried for node in self.nodes]
            await self.redis.ping()
            calm = calm + 1 if before == (self.loads, [node.road.carried for node in self.nodes]) else 0

    async def live(self, program: list[list[Any]]) -> None:
        async with asyncio.TaskGroup() as group:
            for operations in program:
                self.step += 1
                for name, *arguments in operations:
                    operation: Coroutine[Any, Any, Any] = getattr(self, name)(*arguments)
                    task = group.create_task(operation)
                    if name == "hear":
                        await task
                await self.quiet()
            self.holding = False
            while self.held:
                await self.go_on()
            await self.hear()
            await self.forget()  # and who held a claim when its road was cut
        await self.hear()
        for at in range(len(self.nodes)):
            for key in KEYS:
                assert await self.read(at, key) == self.versions[key]
            loads = self.loads
            assert await self.read(at, KEYS[-1]) == self.versions[KEYS[-1]]
            assert self.loads == loads, "nothing is kept"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still unless it is told to go on; and short pauses."""
    clock = [1_000_000_000.0]
    for module in (plinth.cache.cache, plinth.cache.stores):
        monkeypatch.setattr(module, "time", lambda: clock[0])
    monkeypatch.setattr(plinth.cache.cache, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(plinth.cache.link, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(plinth.cache.link, "_PAUSE_SECONDS", 0.001)
    return clock


@asynccontextmanager
async def world(redis_url: str, clock: list[float]) -> AsyncIterator[World]:
    address = urlsplit(redis_url)
    namespace = f"test-{uuid4()}"
    nodes: list[Node] = []
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(redis_url))
        for _ in range(2):
            road = await stack.enter_async_context(Road(address.hostname or "", address.port or 6379))
            small = opened(road.through(redis_url), 5, namespace=namespace, memory_entries=2)
            cache = await stack.enter_async_context(small)
            nodes.append(Node(cache, link_of(cache), road))
        world = World(nodes, redis, namespace, clock)
        await world.hear()
        yield world
        await world.forget()


at, key, sometimes = st.sampled_from([0, 1]), st.sampled_from("aaabc"), st.sampled_from([False, False, True])
OPERATIONS: dict[str, tuple[int, list[st.SearchStrategy[Any]]]] = {
    "read": (9, [at, key, st.sampled_from([0.0, TTL]), sometimes, sometimes]),
    "write": (5, [at, key, st.sampled_from([None, None, "all"])]),
    "hear": (3, []),
    "go_on": (2, []),
    "slow_messages": (2, [at]),
    "slow_answers": (2, [at, st.integers(0, 3)]),
    "mend": (2, [at]),
    "cut": (2, [at, st.booleans(), sometimes]),
    "crowd": (1, [at]),
    "forget": (2, [st.sampled_from(["*", "entry:*", "generation:*", "generation:epoch", f"generation:*{KEYS[0]}"])]),
    "roll_back": (1, [at, key]),
    "silence": (1, [at, st.sampled_from(["commands", "all"])]),
    "wait": (1, [st.sampled_from([TTL, 2 * TTL])]),
}
"""Each with how often it occurs, and its arguments."""
operations = st.sampled_from([name for name, (times, _) in OPERATIONS.items() for _ in range(times)]).flatmap(
    lambda name: st.tuples(st.just(name), *OPERATIONS[name][1])
)
programs = st.lists(st.lists(operations, min_size=1, max_size=3), min_size=10, max_size=30)


SLOW_LOAD = ("read", 0, "a", 0.0, True)


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs)
# What was loaded before a write is stored after it.
@example([[SLOW_LOAD], [("write", 0, "a")], [("go_on",)], [("read", 0, "a")]])
# A load from before a write is under way, and nobody who asks later is to wait for it.
@example([[SLOW_LOAD], [("write", 0, "a")], [("read", 0, "a")], [("go_on",)]])
@example([[SLOW_LOAD], [("write", 1, "a")], [("hear",)], [("read", 0, "a")], [("go_on",)]])
@example([[("slow_messages", 0)], [SLOW_LOAD], [("write", 0, "a")], [("read", 0, "a")], [("go_on",)]])
# A cache has not yet heard of its own invalidation.
@example([[("read", 0, "a")], [("slow_messages", 0)], [("write", 0, "a")], [("read", 0, "a")]])
# An answer from before an invalidation comes after it.
@example(
    [
        [("read", 0, "a"), ("read", 1, "b")],
        [("slow_answers", 0, 0)],
        [("read", 0, "b")],
        [("write", 0, "a", "all")],
        [("mend", 0), ("slow_answers", 0, 0)],
        [("read", 0, "a")],
    ]
)
# A load has failed, and its claim is not yet given back.
@example([[("slow_answers", 0, 4)], [("read", 0, "a", 0.0, False, True)], [("read", 0, "a")]])
# An invalidation is not heard, or cannot be sent.
@example([[("read", 0, "a")], [("slow_messages", 0)], [("write", 1, "a")], [("cut", 0, True)], [("hear",)]])
@example([[("read", 1, "a")], [("cut", 0, True, True)], [("write", 0, "a")], [("hear",)], [("read", 1, "a")]])
@example([[("read", 1, "a")], [("silence", 0, "all")], [("write", 0, "a")], [("hear",)], [("hear",), ("read", 1, "a")]])
@example([[("cut", 0, True, True)], [SLOW_LOAD], [("write", 0, "a")], [("read", 0, "a")], [("go_on",)]])
# An invalidation arrives, its answer does not, and it is sent again after a later one.
@example(
    [
        [("slow_messages", 0)],
        [("write", 0, "a")],
        [("read", 1, "a")],
        [("write", 1, "a")],
        [("cut", 0, True)],
        [("mend", 0)],
        [("read", 1, "a")],
    ]
)
async def test_no_read_is_older_than_promised(redis_url: str, clock: list[float], program: list[list[Any]]) -> None:
    async with world(redis_url, clock) as lived:
        await lived.live(program)
