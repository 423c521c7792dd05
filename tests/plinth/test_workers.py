"""Two workers behave as one: writes through one are seen through the other, and a value is loaded once for both."""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from httpx import AsyncClient

from plinth.testing.wire import WirePostgres
from tests.faults.counters import counters
from tests.faults.workers import two_workers

__all__ = ["counters"]
PATH = "/counters/1"


@pytest.fixture
async def workers(
    tmp_path: Path, wire: WirePostgres, database_url: str, redis_url: str, counters: None
) -> AsyncIterator[list[AsyncClient]]:
    # A slow machine must not count as an outage, and the last test's rows not as these.
    variables = {"REDIS_TIMEOUT_SECONDS": "2", "CACHE_NAMESPACE": uuid4().hex}
    async with two_workers(tmp_path, wire.through(database_url), redis_url, **variables) as workers:
        yield workers


async def test_a_write_through_one_is_seen_through_the_other(workers: list[AsyncClient]) -> None:
    for value, (writer, reader) in enumerate([(*workers,), (*workers[::-1],)] * 10, 100):
        while (await reader.get(PATH)).headers["X-Cache"] != "hit":
            pass
        assert (await writer.put(PATH, json={"value": value})).is_success
        assert (await writer.get(PATH)).json()["value"] == value
        # The message may arrive after the response to the write: in 1 of 600 writes it did, by 7 ms.
        seen = [(await reader.get(PATH)).json()["value"]]
        while seen[-1] != value and len(seen) < 1000:
            seen.append((await reader.get(PATH)).json()["value"])
        assert seen[-1] == value
        assert {(await reader.get(PATH)).json()["value"] for _ in range(10)} == {value}


async def test_a_thousand_concurrent_requests_run_one_query_in_each_worker(
    workers: list[AsyncClient], wire: WirePostgres, onlooker: asyncpg.Connection
) -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(files, 4096), most), most))
    ports = [worker.base_url.port for worker in workers]
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500) for port in ports]
    with wire.counting() as count:
        async with onlooker.transaction():
            await onlooker.execute("LOCK TABLE counters")  # delays the load until all requests have arrived
            for _, writer in connections:
                writer.write(f"GET {PATH} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            for worker in workers:
                await worker.get("/ready")
        answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    heads, bodies = zip(*(answer.split(b"\r\n\r\n") for answer in answers), strict=True)
    assert {head.split(b"\r\n")[0] for head in heads} == {b"HTTP/1.1 200 OK"}
    assert 1 <= sum(b"x-cache: miss" in head for head in heads) <= len(workers)
    assert len({*bodies}) == 1
    assert 1 <= len([statement for statement in count.statements if "counters" in statement]) <= len(workers)
