"""Random operations on two caches that share a Redis, interleaved as slow loads and a bad network would.

The promise: once `invalidate` has returned, no read that begins through the same cache returns an older value than was
committed before the call; nor does a read through the other cache, once that has received the message.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

import plinth.cache.bus
import plinth.cache.cache
import plinth.cache.stores
from plinth.cache import Cache, Tag
from plinth.cache.bus import InvalidationBus
from tests.plinth.cache.support import FaultyWire, bus_of, trusting_cache

KEYS = ["a", "b", "c"]  # memory has room for two of them
ALL = Tag("all")
TTL = 10.0
MOST_LOOKS = 500


@dataclass
class Node:
    """Stands for a process."""

    cache: Cache
    bus: InvalidationBus
    wire: FaultyWire
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
    snapshot: dict[bytes, bytes | None] = field(default_factory=dict)

    async def read(self, at: int, key: str, hold: bool = False, fail: bool = False) -> int | None:
        node, began = self.nodes[at], self.step
        least = node.least[key]
        joins = any(name.endswith(f":{key}") for name in node.cache._flights)

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
            version = await node.cache.remember(key, TTL, load, schema=int, tags=[ALL])
        except FailedError as failed:
            assert failed.step >= began or joins, "a failure was cached"  # noqa: PT017 - most do not fail
            return None
        assert least <= version <= self.versions[key], f"{key} in cache {at}, since step {began}"
        return version

    async def write(self, at: int, key: str, tag: Tag | None = None) -> None:
        """Commit, then invalidate, as `after_commit` does."""
        self.versions[key] += 1
        committed = {key: self.versions[key]} if tag is None else {**self.versions}
        await self.nodes[at].cache.invalidate(tag or key)
        self.promise(self.nodes[at], committed)

    def promise(self, node: Node, versions: Mapping[str, int]) -> None:
        for key, version in versions.items():
            node.least[key] = max(node.least[key], version)

    async def finish_load(self) -> None:
        """The load that has been held longest goes on."""
        if self.held:
            self.held.pop(0).set()

    async def deliver(self) -> None:
        """Both caches receive all invalidations. Loads that are held stay so."""
        for node in self.nodes:
            node.wire.restore()
        promised = [{**node.least} for node in self.nodes]
        async with asyncio.timeout(20):
            for node, other in (self.nodes, self.nodes[::-1]):
                marker = f"marker {uuid4()}"
                while marker not in other.bus.generations._known:
                    while not (node.bus.trusted and other.bus.trusted):  # noqa: ASYNC110 - there is no event
                        await asyncio.sleep(0.001)
                    await node.bus.invalidate([marker])
                    await self.settle()
        for node, versions in zip(self.nodes, promised[::-1], strict=True):
            self.promise(node, versions)

    async def hold_replies(self, at: int, passing: int) -> None:
        self.nodes[at].wire.replies_to_pass = passing

    async def drop(self, at: int, what: Literal["commands", "all"]) -> None:
        self.nodes[at].wire.drops = what

    async def hold_messages(self, at: int) -> None:
        self.nodes[at].wire.holds_messages = True

    async def restore(self, at: int) -> None:
        self.nodes[at].wire.restore()

    async def cut(self, at: int, subscribers: bool = False, refuse: bool = False) -> None:
        self.nodes[at].wire.refuses = refuse
        self.nodes[at].wire.cut(subscribers)

    async def save(self) -> None:
        """Redis writes a snapshot."""
        self.snapshot = {
            key: await self.redis.dump(key) async for key in self.redis.scan_iter(f"{self.namespace}:*", 1000)
        }

    async def restart(self) -> None:
        """Another server is in the place of the old one, with the data of the snapshot."""
        for node in self.nodes:
            node.wire.refuses = True
            node.wire.cut(subscribers=True)
        run_id = uuid4().hex + 8 * "0"
        await self.lose_data()
        for key, dumped in self.snapshot.items():
            if dumped:
                await self.redis.restore(key, 60_000, dumped, replace=True)
        for node in self.nodes:
            node.wire.run_id = run_id.encode()
            node.wire.refuses = False

    async def lose_data(self, keys: str = "*") -> None:
        """Redis loses all keys, as by FLUSHALL, or some, as by an eviction or when they expire."""
        if found := [key async for key in self.redis.scan_iter(f"{self.namespace}:{keys}", 1000)]:
            await self.redis.delete(*found)

    async def evict_names(self, at: int) -> None:
        """Invalidate so many names that the cache forgets all others."""
        await self.nodes[at].cache.invalidate(*(f"{number}" + "n" * 10_000 for number in range(10)))

    async def advance_clock(self, seconds: float) -> None:
        self.clock[0] += seconds

    async def settle(self) -> None:
        """Wait until nothing moves: all that is unfinished waits for something that is held.

        Not for ever: on a slow machine the caches connect again as often as this looks.
        """
        calm = looks = 0
        while calm < 3 and looks < MOST_LOOKS:
            before = self.loads, [node.wire.activity for node in self.nodes]
            await self.redis.ping()
            calm = calm + 1 if before == (self.loads, [node.wire.activity for node in self.nodes]) else 0
            looks += 1

    async def run(self, program: list[list[Any]]) -> None:
        async with asyncio.TaskGroup() as group:
            for operations in program:
                self.step += 1
                for name, *arguments in operations:
                    operation: Coroutine[Any, Any, Any] = getattr(self, name)(*arguments)
                    task = group.create_task(operation)
                    if name == "deliver":
                        await task
                await self.settle()
            self.holding = False
            while self.held:
                await self.finish_load()
            await self.deliver()
        await self.deliver()
        for at in range(len(self.nodes)):
            for key in KEYS:
                assert await self.read(at, key) == self.versions[key]
            loads = self.loads
            assert await self.read(at, KEYS[-1]) == self.versions[KEYS[-1]]
            assert self.loads == loads, "nothing is cached"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which advances by `advance_clock` only. Pauses are shortened."""
    clock = [1_000_000_000.0]
    for module in (plinth.cache.cache, plinth.cache.stores):
        monkeypatch.setattr(module, "time", lambda: clock[0])
    monkeypatch.setattr(plinth.cache.bus, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(plinth.cache.bus, "_RECONNECT_SECONDS", 0.001)
    return clock


@asynccontextmanager
async def running_world(redis_url: str, clock: list[float]) -> AsyncIterator[World]:
    address = urlsplit(redis_url)
    namespace = f"test-{uuid4()}"
    nodes: list[Node] = []
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(redis_url))
        for _ in range(2):
            wire = await stack.enter_async_context(FaultyWire(address.hostname or "", address.port or 6379))
            small = trusting_cache(wire.through(redis_url), 5, namespace=namespace, memory_entries=2)
            cache = await stack.enter_async_context(small)
            nodes.append(Node(cache, bus_of(cache), wire))
        world = World(nodes, redis, namespace, clock)
        for at in range(len(nodes)):
            await world.read(at, KEYS[0])  # from here on, both publish
        await world.deliver()
        yield world
        await world.lose_data()


at, key, sometimes = st.sampled_from([0, 1]), st.sampled_from("aaabc"), st.sampled_from([False, False, True])
OPERATIONS: dict[str, tuple[int, list[st.SearchStrategy[Any]]]] = {
    "read": (9, [at, key, sometimes, sometimes]),
    "write": (6, [at, key, st.sampled_from([None, None, ALL])]),
    "deliver": (3, []),
    "finish_load": (2, []),
    "hold_messages": (2, [at]),
    "hold_replies": (2, [at, st.integers(0, 3)]),
    "restore": (2, [at]),
    "cut": (2, [at, st.booleans(), sometimes]),
    "evict_names": (1, [at]),
    "lose_data": (2, [st.sampled_from(["*", "entry:*", "generation:*", "epoch", f"generation:{KEYS[0]}"])]),
    "save": (1, []),
    "restart": (1, []),
    "drop": (1, [at, st.sampled_from(["commands", "all"])]),
    "advance_clock": (1, [st.just(TTL)]),
}
"""The weight of each operation, and its arguments."""
operations = st.sampled_from([name for name, (weight, _) in OPERATIONS.items() for _ in range(weight)]).flatmap(
    lambda name: st.tuples(st.just(name), *OPERATIONS[name][1])
)
programs = st.lists(st.lists(operations, min_size=1, max_size=3), min_size=10, max_size=30)


SLOW_LOAD, DELIVER = ("read", 0, "a", True), ("deliver",)


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs)
# A value is loaded before a write and stored after it.
@example([[SLOW_LOAD], [("write", 0, "a")], [("finish_load",)], [("read", 0, "a")]])
# A load began before a write. A read that begins after the write must not join it.
@example([[SLOW_LOAD], [("write", 0, "a")], [("read", 0, "a")], [("finish_load",)]])
@example([[SLOW_LOAD], [("write", 1, "a")], [DELIVER], [("read", 0, "a")], [("finish_load",)]])
@example([[("hold_messages", 0)], [SLOW_LOAD], [("write", 0, "a")], [("read", 0, "a")], [("finish_load",)]])
# A read begins after an invalidation, whose message is not back yet.
@example([[("read", 0, "a")], [("hold_messages", 0)], [("write", 0, "a")], [("read", 0, "a")]])
# Redis replies to a read, then an invalidation is sent, and then the first reply arrives.
@example(
    [
        [("read", 0, "a"), ("read", 1, "b")],
        [("hold_replies", 0, 0)],
        [("read", 0, "b")],
        [("write", 0, "a", ALL)],
        [("restore", 0), ("hold_replies", 0, 0)],
        [("read", 0, "a")],
    ]
)
# A read is answered after the invalidation was sent, and before Redis has carried it out.
@example(
    [
        [("read", 0, "a"), ("read", 1, "a")],
        [("advance_clock", TTL)],
        [("read", 1, "a")],
        [DELIVER],
        [("drop", 0, "all"), ("write", 0, "a")],
        [("read", 0, "a")],
        [("restore", 0)],
        [("read", 0, "a")],
        [DELIVER, ("read", 1, "a")],
    ]
)
# A server with older data takes the place of the one that was written to.
@example([[("read", 1, "a")], [("save",)], [("write", 0, "a")], [("restart",)], [DELIVER], [("read", 1, "a")]])
@example(
    [[("read", 1, "a")], [("save",)], [SLOW_LOAD], [("write", 0, "a"), ("restart",)], [("finish_load",)], [DELIVER]]
)
# A generation is lost while a load depends on it, or while an entry in memory does.
@example([[SLOW_LOAD], [("write", 1, "a")], [("lose_data", "generation:*")], [("finish_load",)], [("read", 1, "a")]])
@example([[("read", 0, "a")], [("lose_data", "*")], [("write", 1, "a")], [DELIVER], [("read", 0, "a")]])
# A message does not arrive, or cannot be sent.
@example([[("read", 0, "a")], [("hold_messages", 0)], [("write", 1, "a")], [("cut", 0, True)], [DELIVER]])
@example([[("read", 1, "a")], [("cut", 0, True, True)], [("write", 0, "a")], [DELIVER], [("read", 1, "a")]])
@example([[("read", 1, "a")], [("drop", 0, "all")], [("write", 0, "a")], [DELIVER], [DELIVER, ("read", 1, "a")]])
@example([[("cut", 0, True, True)], [SLOW_LOAD], [("write", 0, "a")], [("read", 0, "a")], [("finish_load",)]])
# Cache 0 invalidates, and the reply is lost with the connection. Cache 1 stores an entry, and then invalidates. If the
# first invalidation were sent again, it would come last, and bring back the generation of that entry.
@example(
    [
        [("hold_messages", 0)],
        [("write", 0, "a")],
        [("read", 1, "a")],
        [("write", 1, "a")],
        [("cut", 0, True)],
        [("restore", 0)],
        [("read", 1, "a")],
    ]
)
async def test_no_read_is_older_than_promised(redis_url: str, clock: list[float], program: list[list[Any]]) -> None:
    async with running_world(redis_url, clock) as world:
        await world.run(program)
