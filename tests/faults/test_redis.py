"""Redis is killed and restarts with an older snapshot, while two workers serve reads and writes over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest
from httpx import AsyncClient

from tests.app.factories import create_category, create_product
from tests.faults.redis_server import RestartableServer, restartable_server, wait_until
from tests.faults.workers import two_workers

IDS = range(1, 7)
OUTAGES = 3
MAX_DELAY_SECONDS = 0.5
"""How long a message between workers may take. 0.05 s is the aim; a slow machine takes longer."""


@dataclass
class Load:
    """The stock of each product counts its writes.

    A client never sees a lower stock than before, nor a lower one than was written through the same worker, nor a lower
    one than was written through the other worker `MAX_DELAY_SECONDS` earlier.
    """

    workers: list[AsyncClient]
    acknowledged: dict[tuple[int, int], list[tuple[float, int]]] = field(default_factory=dict)
    """The time and the stock of each acknowledged write, by worker and product."""
    finished: bool = False
    reads: int = 0
    writes: int = 0
    errors: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    """Of each read that missed a write through the other worker: the seconds since that was acknowledged."""

    async def write(self, at: int, id: int) -> None:
        """Write one product again and again, through one worker."""
        written = self.acknowledged.setdefault((at, id), [(0.0, 0)])
        stock = 0
        while not self.finished:
            stock += 1
            response = await self.workers[at].patch(f"/api/products/{id}", json={"stock": stock})
            if response.status_code != 200:
                self.errors.append(f"{response.status_code} {response.text}")
                continue
            written.append((monotonic(), stock))
            self.writes += 1
            await asyncio.sleep(0.005)

    async def read(self, at: int, id: int, by: int) -> None:
        seen = 0
        while not self.finished:
            written = self.acknowledged[by, id]
            began, known = monotonic(), len(written)
            response = await self.workers[at].get(f"/api/products/{id}")
            if response.status_code != 200:
                self.errors.append(f"{response.status_code} {response.text}")
                continue
            self.reads += 1
            stock = response.json()["stock"]
            missed = [began - when for when, number in written[:known] if number > stock]
            if stock < seen or (missed and (at == by or missed[0] > MAX_DELAY_SECONDS)):
                self.stale.append(f"{stock} of {id} through {at}, after {seen}, {missed[:1]} s after a write")
            self.delays += missed[:1]
            seen = max(stock, seen)

    async def proceed(self) -> None:
        """Wait for some more reads and writes."""
        reads, writes = self.reads + 200, self.writes + 60
        await wait_until(lambda: self.reads >= reads and self.writes >= writes, 60)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestartableServer]:
    with restartable_server(tmp_path) as server:
        yield server


async def test_redis_is_killed_and_restarts_under_load(
    server: RestartableServer, tmp_path: Path, database_url: str, empty_tables: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with two_workers(tmp_path, database_url, server.url) as workers:
        await create_category(workers[0])
        for id in IDS:
            await create_product(workers[0], sku=str(id), stock=0)
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
            assert [(await worker.get(f"/api/products/{id}")).json()["stock"] for worker in workers] == [last, last]
        for worker in workers:
            while (await worker.get(f"/api/products/{IDS[0]}")).headers["X-Cache"] != "hit":
                pass
