"""Random operations on two caches that share a Redis, in the orders that slow loads and a bad network bring about.

The promise: once `invalidate` has returned, no read that begins through the same cache returns what is older than what
was committed before; nor does one through another cache, once that has heard of it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

import app.cache.cache
import app.cache.link
import app.cache.memory
import app.cache.shared
from app.cache import Cache, open_cache, open_redis
from app.cache.link import Link
from app.cache.shared import RedisStore
from app.config import CacheSettings, RedisSettings
from tests.wire import End, WireRedis

KEYS = ["a", "b", "c"]  # and room for two of them
TTL = 10.0


class Road(WireRedis):
    """The way of one cache to Redis. It can be slow, lose what is on it, and be closed."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.closed = False
        self.passing = -1
        """Answers until the first that is held back; none is while it is negative."""
        self.holds_messages = False
        self.carried = 0
        self._listeners: set[End] = set()
        self._held_back: list[tuple[End, bytes]] = []

    def cut(self, listeners: bool) -> None:
        for end in [end for end in self._open_ends if end.peer in self._open_ends]:
            if listeners or not self._listeners & {end, end.peer}:
                end.transport.abort()

    def mend(self) -> None:
        self.closed, self.passing, self.holds_messages = False, -1, False
        for client, data in self._held_back:
            if not client.transport.is_closing():
                client.transport.write(data)
        self._held_back.clear()

    async def _relay(self, accepted: socket.socket) -> None:
        if self.closed:
            accepted.close()
        else:
            await super()._relay(accepted)

    def _read(self, client: End, frame: bytes) -> bytes:
        self.carried += 1
        if b"SUBSCRIBE" in frame:
            self._listeners.add(client)
        return super()._read(client, frame)

    def _received(self, server: End, data: bytes) -> bytes:
        self.carried += 1
        if server.peer in self._listeners:
            held_back = self.holds_messages
        else:
            held_back = self.passing == 0
            self.passing -= self.passing > 0
        if held_back:
            self._held_back.append((server.peer, data))
        return b"" if held_back else data


@dataclass
class Node:
    """A process, as it were."""

    cache: Cache
    link: Link
    road: Road
    least: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    """The oldest versions that a read that begins now may return."""


class FailedError(Exception):
    """A load has failed."""

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
            assert failed.step >= began, "a failure was kept"  # noqa: PT017 - most do not fail
            return None
        assert least <= version <= self.versions[key], f"{key} in cache {at}, since step {began}"
        return version

    async def write(self, at: int, key: str, name: str | None = None) -> None:
        self.versions[key] += 1
        committed = {key: self.versions[key]} if name is None else {**self.versions}
        await self.nodes[at].cache.invalidate(name or key)
        self.promise(self.nodes[at], committed)

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
        async with asyncio.timeout(4):
            for node, other in (self.nodes, self.nodes[::-1]):
                marker = f"marker {uuid4()}"
                while other.link.names.generations([marker]) is None:
                    while not (node.link.trusted and other.link.trusted):  # noqa: ASYNC110 - there is no event
                        await asyncio.sleep(0.001)
                    await node.cache.invalidate(marker)
                    await self.quiet()
        for node, versions in zip(self.nodes, promised[::-1], strict=True):
            self.promise(node, versions)

    async def slow_answers(self, at: int, passing: int) -> None:
        self.nodes[at].road.passing = passing

    async def slow_messages(self, at: int) -> None:
        self.nodes[at].road.holds_messages = True

    async def mend(self, at: int) -> None:
        self.nodes[at].road.mend()

    async def cut(self, at: int, listeners: bool = False, close: bool = False) -> None:
        self.nodes[at].road.closed = close
        self.nodes[at].road.cut(listeners)

    async def forget(self) -> None:
        """Redis loses all that it had."""
        if keys := [key async for key in self.redis.scan_iter(f"{self.namespace}:*", 1000)]:
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
    for module in (app.cache.cache, app.cache.memory, app.cache.shared):
        monkeypatch.setattr(module, "time", lambda: clock[0])
    monkeypatch.setattr(app.cache.cache, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(app.cache.link, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(app.cache.link, "_SHORTEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(app.cache.link, "_LONGEST_PAUSE_SECONDS", 0.01)
    return clock


@asynccontextmanager
async def world(redis_url: str, clock: list[float]) -> AsyncIterator[World]:
    address = urlsplit(redis_url)
    namespace = f"test-{uuid4()}"
    small = CacheSettings(namespace=namespace, memory_entries=2)
    nodes: list[Node] = []
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(redis_url))
        for _ in range(2):
            road = await stack.enter_async_context(Road(address.hostname or "", address.port or 6379))
            way = RedisSettings(url=road.through(redis_url), timeout_seconds=5)
            client = await stack.enter_async_context(open_redis(way))
            cache = await stack.enter_async_context(open_cache(small, client, 5))
            nodes.append(Node(cache, cast(RedisStore, cache._store)._link, road))
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
    "forget": (1, []),
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
        [("read", 0, "a"), ("write", 0, "c"), ("read", 1, "b")],  # which leaves it two connections
        [("slow_answers", 0, 0)],
        [("read", 0, "b")],
        [("write", 0, "a", "all")],
        [("mend", 0), ("slow_answers", 0, 0)],
        [("read", 0, "a")],
    ]
)
# An invalidation is not heard, or cannot be sent.
@example([[("read", 0, "a")], [("slow_messages", 0)], [("write", 1, "a")], [("cut", 0, True)], [("hear",)]])
@example([[("read", 1, "a")], [("cut", 0, True, True)], [("write", 0, "a")], [("hear",)], [("read", 1, "a")]])
# An invalidation arrives, its answer does not, and it is sent again after a later one.
@example(
    [
        [("slow_answers", 0, 0)],
        [("write", 0, "a")],
        [("read", 1, "a")],
        [("write", 1, "a")],
        [("cut", 0)],
        [("mend", 0)],
        [("read", 1, "a")],
    ]
)
async def test_no_read_is_older_than_promised(redis_url: str, clock: list[float], program: list[list[Any]]) -> None:
    async with world(redis_url, clock) as lived:
        await lived.live(program)
