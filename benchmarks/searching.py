"""How long searches take: one at a time, and at half of what the app answers at most."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection
from itertools import chain
from random import Random
from statistics import median, quantiles
from time import perf_counter, process_time
from urllib.parse import quote_plus

import uvloop

from benchmarks.client import LENGTH, body_of, request
from benchmarks.figures import at_most
from benchmarks.measure import measure_slice, show
from benchmarks.processes import CORES, DRIVER_CORES, busy_seconds, pinned
from benchmarks.servers import Server
from benchmarks.testbed import Testbed
from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK

# A letter is in almost every product, and `lap-0000` in a few; `the` is a stop word, and `zzz` is nowhere.
QUERIES = ["a", "e", "p", "q", "x", "zzz", "pro l", "aurora laptop", "quiet", "laptop", "lap-0000", "the"]
PATHS = {f"/api/products/search?q={quote_plus(text)}": text for text in QUERIES}
LIMIT_MS = 20
WARM_UP = 10
HEAD = ["search", "alone p50 ms", "p99 ms", "half load p50 ms", "p99 ms", "at random p50 ms", "p99 ms"]

Times = Mapping[str, Sequence[float]]
"""Seconds of the requests of each path."""


def searches(bed: Testbed, app: Server, samples: int, seconds: int) -> list[list[str]]:
    """The rows of the table: of each search, and of all of them at half load."""
    with pinned(DRIVER_CORES):
        alone = one_at_a_time(app.port, samples)
        lines = bed.directory / "search.lines"
        lines.write_text("".join(f"GET {path}\n" for path in Random(2026).sample([*PATHS], len(PATHS))))
        rate = measure_slice(app, lines, max(1, seconds // 6)).rate / 2
        used, busy = _used_seconds(bed, app), busy_seconds(set(CORES))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            even, scattered = (runner.run(at_rate(app.port, rate, seconds, at_random)) for at_random in (False, True))
        used, busy = _used_seconds(bed, app) - used, busy_seconds(set(CORES)) - busy
    others = (busy - used) / (2 * seconds * len(CORES))
    show(
        f"Half load: {rate:.0f} searches per second for {seconds} s, at even intervals, as wrk2 sends them; then as"
        f" many at random moments (Poisson). Other processes used {others:.0%} of the cores meanwhile."
    )
    return search_rows(alone, even, scattered)


def _used_seconds(bed: Testbed, app: Server) -> float:
    """CPU time of all that is measured here, and of this process."""
    return app.cpu_seconds() + bed.postgres_cpu_seconds() + process_time()


def search_rows(alone: Times, even: Times, scattered: Times) -> list[list[str]]:
    """Random moments are shown and have no bound: some come together, and then wait for each other's answers."""
    rows = [
        [text, *_bounded(alone[path]), *_bounded(even[path]), *_shown(scattered[path])] for path, text in PATHS.items()
    ]
    every, others = (list(chain.from_iterable(times.values())) for times in (even, scattered))
    return [*rows, ["all", "", "", *_bounded(every), *_shown(others)]]


def _bounded(seconds: Sequence[float]) -> list[str]:
    return [f"{median(seconds) * 1e3:.1f}", at_most(p99_ms(seconds), LIMIT_MS)]


def _shown(seconds: Sequence[float]) -> list[str]:
    return [f"{median(seconds) * 1e3:.1f}", f"{p99_ms(seconds):.1f}"]


def p99_ms(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100, method="inclusive")[98] * 1e3


def one_at_a_time(port: int, samples: int) -> Times:
    """In random order, so that other load on the machine affects all alike."""
    order = [path for path in PATHS for _ in range(samples)]
    Random(2026).shuffle(order)
    times: dict[str, list[float]] = {path: [] for path in PATHS}
    with closing(HTTPConnection(LOOPBACK, port, timeout=30)) as connection:
        for number, path in enumerate([*PATHS] * WARM_UP + order):
            began = perf_counter()
            body_of(connection, path)
            if number >= WARM_UP * len(PATHS):
                times[path].append(perf_counter() - began)
    return times


async def at_rate(port: int, rate: float, seconds: float, at_random: bool) -> Times:
    """Requests whose moments do not depend on the answers before. A late start counts as time that the request took."""
    random = Random(2026)
    times: dict[str, list[float]] = {path: [] for path in PATHS}
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def search(path: str, due: float) -> None:
        while idle and idle[-1][0].at_eof():
            idle.pop()[1].close()
        reader, writer = idle.pop() if idle else await asyncio.open_connection(LOOPBACK, port)
        writer.write(request(f"GET {path}"))
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        if head[9:12] != b"200" or length is None:
            writer.close()
            raise SetupError(f"{path} was answered {head[9:12].decode()}.")
        await reader.readexactly(int(length[1]))
        times[path].append(perf_counter() - due)
        idle.append((reader, writer))

    due = perf_counter()
    ends_at = due + seconds
    async with asyncio.TaskGroup() as requests:
        while due < ends_at:
            for path in random.sample([*PATHS], len(PATHS)):
                due += random.expovariate(rate) if at_random else 1 / rate
                await asyncio.sleep(0)
                while (left := due - perf_counter()) > 0:  # noqa: ASYNC110 - a timer may be early
                    await asyncio.sleep(left)
                requests.create_task(search(path, due))
    for _, writer in idle:
        writer.close()
    return times
