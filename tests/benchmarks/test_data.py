"""What `make bench-data` sends, and what it makes of its measurements."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import getpid
from time import perf_counter

import pytest
from httpx import AsyncClient

from app.enums import Role
from app.settings import Settings
from benchmarks.data import missed_in, path_of_page
from benchmarks.exporting import COPY, pieces
from benchmarks.processes import peak_megabytes, reset_peak
from benchmarks.searching import LIMIT_MS, PATHS, QUERIES, at_rate, one_at_a_time, p99_ms, search_rows
from plinth.testing.client import Service, served
from plinth.testing.locks import SetupError
from tests.app.accounts import token_of


@asynccontextmanager
async def responding(answer: bytes) -> AsyncIterator[int]:
    """A server that sends these bytes once it has a request, and closes the connection. Yields its port."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def test_the_99th_percentile_of_known_samples() -> None:
    assert p99_ms([number / 1000 for number in range(101)]) == pytest.approx(99)
    assert p99_ms([0.001, 0.001]) == pytest.approx(1)


def test_a_search_that_is_slow_once_in_fifty_times_misses_its_bound() -> None:
    fast, slow = [0.005] * 100, [0.005] * 98 + [0.05] * 2
    alone, even, scattered = (dict.fromkeys(PATHS, fast) for _ in range(3))
    assert missed_in(search_rows(alone, even, scattered)) == []
    rows = search_rows({**alone, "/api/products/search?q=a": slow}, even, dict.fromkeys(PATHS, slow))
    assert missed_in(rows) == [f"Missed: a, 50 > {LIMIT_MS}"]
    assert [row[0] for row in rows] == [*QUERIES, "all"]
    assert rows[0][5:] == ["5.0", "50.0"]  # at random moments, which have no bound


@pytest.mark.parametrize("at_random", [False, True])
async def test_requests_arrive_at_their_rate_whatever_the_answers_take(service: Service, at_random: bool) -> None:
    began = perf_counter()
    async with served(service) as port:
        times = await at_rate(port, 120, 0.5, at_random)
    assert perf_counter() - began >= 0.5
    assert sum(map(len, times.values())) % len(PATHS) == 0  # each search as often as every other
    assert 48 <= sum(map(len, times.values())) <= 96
    assert all(seconds > 0 for each in times.values() for seconds in each)


async def test_an_error_is_not_a_fast_answer() -> None:
    async with responding(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as port:
        with pytest.raises(ExceptionGroup) as raised:
            await at_rate(port, 100, 0.1, False)
        assert raised.group_contains(SetupError, match=r"was answered 503\.")
        with pytest.raises(SetupError, match=r"was answered 503\."):
            await asyncio.to_thread(one_at_a_time, port, 1)


async def test_an_export_is_read_to_its_end(catalogue: AsyncClient, service: Service, settings: Settings) -> None:
    authorization = f"Bearer {token_of(settings, Role.EDITOR)}"
    async with served(service) as port:
        body = b"".join(await asyncio.to_thread(lambda: list(pieces(port, "ndjson", authorization))))
    exported = (await catalogue.get("/api/products/export")).content
    assert exported.count(b"\n") == 24
    assert all(line in body for line in exported.splitlines())
    assert body.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "was answered"),
        (b"", "was answered"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "broke off"),
    ],
)
async def test_an_export_that_fails_is_not_a_fast_one(answer: bytes, sentence: str) -> None:
    async with responding(answer) as port:
        with pytest.raises(SetupError, match=sentence):
            await asyncio.to_thread(lambda: list(pieces(port, "csv", "")))


async def test_psql_copies_what_an_export_has(catalogue: AsyncClient) -> None:
    [head, *_] = (await catalogue.get("/api/products/export?format=csv")).text.splitlines()
    columns = COPY.partition("SELECT ")[2].partition(" FROM")[0].replace("c.name", "p.category_name")
    assert [each.strip().removeprefix("p.") for each in columns.split(",")] == head.split(",")


async def test_a_deep_page_is_reached_by_the_cursors(catalogue: AsyncClient, service: Service) -> None:
    async with served(service) as port:

        def page(number: int) -> str:
            return path_of_page(port, "/api/products?sort=-price&limit=10", number)

        third = (await catalogue.get(await asyncio.to_thread(page, 3))).json()
        assert [item["price"] for item in third["items"]] == ["4.05", "3.05", "2.05", "1.05"]
        assert await asyncio.to_thread(page, 1) == "/api/products?sort=-price&limit=10"
        with pytest.raises(SetupError, match="ends before page 4"):
            await asyncio.to_thread(page, 4)


def test_the_peak_of_memory_is_seen_after_it_was_freed() -> None:
    before = reset_peak(getpid())
    kept = bytearray(64 * 1024 * 1024)
    kept[::4096] = b"x" * len(kept[::4096])
    del kept
    assert 60 < peak_megabytes(getpid()) - before < 200
    assert reset_peak(getpid()) < before + 30
    assert peak_megabytes(getpid()) < before + 30
