"""What a cache promises across processes, with two of them: this module is also the program that they run."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import orjson
import pytest
from redis.asyncio import Redis

import app.cache.cache
from app.cache import open_cache, open_redis
from app.cache.shared import RedisStore
from app.config import CacheSettings, RedisSettings
from tests.environment import ROOT, child_environment

POLL_SECONDS = 0.005


def say(what: object) -> None:
    sys.stdout.write(f"{orjson.dumps(what).decode()}\n")
    sys.stdout.flush()


async def obey(redis_url: str, namespace: str, claim_seconds: str) -> None:
    """Do what the lines say that come in, and answer each with a line of JSON."""
    app.cache.cache.CLAIM_SECONDS = float(claim_seconds)
    settings = RedisSettings(url=redis_url, timeout_seconds=2)
    async with (
        open_redis(settings) as redis,
        open_cache(CacheSettings(namespace=namespace), redis, settings.timeout_seconds) as cache,
        Redis.from_url(redis_url) as source,
    ):
        assert isinstance(cache._store, RedisStore)
        while not cache._store._link.trusted:  # noqa: ASYNC110 - it has no event for that, and needs none
            await asyncio.sleep(POLL_SECONDS)
        say("ready")

        async def load() -> int:
            await source.incr(f"{namespace}:loads")
            value = int(await source.get(f"{namespace}:value") or 0)
            while await source.exists(f"{namespace}:closed"):  # noqa: ASYNC110 - another process opens it
                await asyncio.sleep(POLL_SECONDS)
            return value

        async def get() -> int:
            return await cache.remember("answer", 600, load, schema=int)

        while words := (await asyncio.to_thread(sys.stdin.readline)).split():
            if words[0] == "invalidate":
                await cache.invalidate("answer")
                say("done")
            else:
                callers = [asyncio.create_task(get()) for _ in range(int(words[1]))]
                await asyncio.sleep(0)
                say("asked")
                say(await asyncio.gather(*callers))


class Child:
    def __init__(self, process: Process) -> None:
        self.process = process

    async def said(self) -> object:
        assert self.process.stdout
        return orjson.loads(await self.process.stdout.readline())

    async def begin_get(self, times: int = 1) -> None:
        self._say(f"get {times}")
        assert await self.said() == "asked"

    async def get(self, times: int = 1) -> set[int]:
        await self.begin_get(times)
        return await self.answers()

    async def answers(self) -> set[int]:
        said = await self.said()
        assert isinstance(said, list)
        return {*said}

    async def invalidate(self) -> None:
        self._say("invalidate")
        assert await self.said() == "done"

    def _say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())


class World:
    """What is loaded, how often that was, and whether loads may end."""

    def __init__(self, redis: Redis, redis_url: str, namespace: str) -> None:
        self._redis = redis
        self._redis_url = redis_url
        self._namespace = namespace

    @asynccontextmanager
    async def child(self, claim_seconds: float = 60) -> AsyncIterator[Child]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.cache.test_processes"),
            *(self._redis_url, self._namespace, str(claim_seconds)),
            env=child_environment(),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
        )
        try:
            child = Child(process)
            assert await child.said() == "ready"
            yield child
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def set(self, value: int) -> None:
        await self._redis.set(f"{self._namespace}:value", value)

    async def loads(self) -> int:
        return int(await self._redis.get(f"{self._namespace}:loads") or 0)

    async def close_gate(self) -> None:
        await self._redis.set(f"{self._namespace}:closed", 1)

    async def open_gate(self) -> None:
        await self._redis.delete(f"{self._namespace}:closed")

    async def load_begins(self, times: int = 1) -> None:
        while await self.loads() < times:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(POLL_SECONDS)


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    async with Redis.from_url(redis_url) as redis, asyncio.timeout(30):
        world = World(redis, redis_url, f"test-{uuid4()}")
        await world.set(0)
        yield world


async def test_an_invalidation_reaches_the_other_process(world: World) -> None:
    async with world.child() as a, world.child() as b:
        for value, (one, other) in enumerate([(a, b), (b, a)] * 10, 1):
            before = await one.get() | await other.get()
            assert before == {value - 1}
            loads = await world.loads()
            assert await one.get(100) == await other.get(100) == before
            assert await world.loads() == loads
            await world.set(value)
            await one.invalidate()
            assert await one.get() == {value}
            while await other.get() == before:  # noqa: ASYNC110 - what it waits for is the point
                await asyncio.sleep(0)
            for _ in range(10):
                assert await one.get(10) == await other.get(10) == {value}


async def test_two_hundred_callers_in_two_processes_load_once(world: World) -> None:
    async with world.child() as one, world.child() as other:
        await world.close_gate()
        await one.begin_get(100)
        await other.begin_get(100)
        await world.load_begins()
        await world.open_gate()
        assert await one.answers() == await other.answers() == {0}
        assert await world.loads() == 1


@pytest.mark.parametrize(("claims_for", "waits_for"), [(0.5, 60.0), (60.0, 0.5)])
async def test_a_loader_that_is_killed_keeps_nobody_from_an_answer(
    world: World, claims_for: float, waits_for: float
) -> None:
    async with world.child(claims_for) as loader, world.child(waits_for) as other:
        await world.close_gate()
        await loader.begin_get()
        await world.load_begins()
        loader.process.kill()
        await loader.process.wait()
        await other.begin_get(100)
        await world.open_gate()
        assert await other.answers() == {0}
        assert await world.loads() == 2


async def test_a_loader_that_does_not_end_keeps_nobody_from_an_answer(world: World) -> None:
    async with world.child(claim_seconds=0.2) as loader, world.child() as other:
        await world.close_gate()
        await loader.begin_get()
        await world.load_begins()
        await other.begin_get()
        await world.load_begins(times=2)
        await world.open_gate()
        assert await loader.answers() == await other.answers() == {0}


if __name__ == "__main__":
    asyncio.run(obey(*sys.argv[1:]))
