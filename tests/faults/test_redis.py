"""Redis is killed and restarts with an older snapshot, while two workers serve reads and writes over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest
from httpx import AsyncClient

from tests.faults.redis_server import RestartableServer, restartable_server, wait_until
from tests.faults.workers import two_workers

IDS = range(1, 7)
OUTAGES = 3
MAX_DELAY_SECONDS = 0.5
"""How long a message between workers may take. 0.05 s is the aim; a slow machine takes longer."""


@dataclass
class Load:
    """The value of each counter is the number of its writes.

    A client never sees a lower value than before, nor a lower one than was written through the same worker, nor a lower
    one than was written through the other worker `MAX_DELAY_SECONDS` earlier.
    """

    workers: list[AsyncClient]
    acknowledged: dict[tuple[int, int], list[tuple[float, int]]] = field(default_factory=dict)
    """The time and the value of each acknowledged write, by worker and counter."""
    finished: bool = False
    reads: int = 0
    writes: int = 0
    errors: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    """Of each read that missed a write through the other worker: the seconds since that was acknowledged."""

    async def write(self, at: int, id: int) -> None:
        """Write one counter again and again, through one worker."""
        written = self.acknowledged.setdefault((at, id), [(0.0, 0)])
        value = 0
        while not self.finished:
            value += 1
            response = await self.workers[at].put(f"/counters/{id}", json={"value": value})
            if response.status_code != 200:
                self.errors.append(f"{response.status_code} {response.text}")
                continue
            written.append((monotonic(), value))
            self.writes += 1
            await asyncio.sleep(0.005)

    async def read(self, at: int, id: int, by: int) -> None:
        seen = 0
        while not self.finished:
            written = self.acknowledged[by, id]
            began, known = monotonic(), len(written)
            response = await self.workers[at].get(f"/counters/{id}")
            if response.status_code != 200:
                self.errors.append(f"{response.status_code} {response.text}")
                continue
            self.reads += 1
            value = response.json()["value"]
            missed = [began - when for when, number in written[:known] if number > value]
            if value < seen or (missed and (at == by or missed[0] > MAX_DELAY_SECONDS)):
                self.stale.append(f"{value} of {id} through {at}, after {seen}, {missed[:1]} s after a write")
            self.delays += missed[:1]
            seen = max(value, seen)

    async def proceed(self) -> None:
        """Wait for some more reads and writes."""
        reads, writes = self.reads + 200, self.writes + 60
        await wait_until(lambda: self.reads >= reads and self.writes >= writes, 60)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestartableServer]:
    with restartable_server(tmp_path) as server:
        yield server


async def test_redis_is_killed_and_restarts_under_load(
    server: RestartableServer, tmp_path: Path, database_url: str, counters: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with two_workers(tmp_path, database_url, server.url) as workers:
        load = Load(workers)
        async with asyncio.TaskGroup() as tasks:
            for id in IDS:
                tasks.create_task(load.write(id % 2, id))
            await asyncio.sleep(0)
            for id in IDS:
                for at in (0, 1):
                    tasks.create_task(load.read(at, id, by=id % 2))
            for _ in range(OUTAGES):
                await load.proceed()
                await server.save()
                await load.proceed()
                await asyncio.to_thread(server.kill)
                await load.proceed()
                await asyncio.to_thread(server.start)
                await load.proceed()
            load.finished = True
        figures = f"{load.reads} reads, {load.writes} writes, {len(load.errors)} errors, {len(load.stale)} stale"
        late = f"{len(load.delays)} late messages, {1000 * max(load.delays, default=0):.0f} ms at most"
        with capsys.disabled():
            print(f"\n{figures}; {late}")  # noqa: T201 - the suite is run for these figures
        assert not load.errors
        assert not load.stale
        for id in IDS:
            last = load.acknowledged[id % 2, id][-1][1]
            assert [(await worker.get(f"/counters/{id}")).json()["value"] for worker in workers] == [last, last]
        for worker in workers:
            while (await worker.get(f"/counters/{IDS[0]}")).headers["X-Cache"] != "hit":
                pass
