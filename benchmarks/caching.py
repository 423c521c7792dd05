"""`make bench-cache`: the cost of cached responses, relative to a ping of bare ASGI."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

from httpx import AsyncClient

from benchmarks.compare import PRODUCTS
from benchmarks.figures import at_least, at_most, table
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, Subject, measure, median_of, merge, ratio, show
from benchmarks.scenarios import PING, Scenario
from benchmarks.servers import Server
from benchmarks.testbed import USUAL, Testbed, testbed
from plinth.testing.wire import WireRedis

BASELINE = "ping of floor A"
CACHED = 100  # products, which are requested over and over
AHEAD = 2.5
"""Target: a hit of a TTL cache in an endpoint of the usual template costs at least this many times ours."""


@dataclass(frozen=True)
class Case:
    """Requests for cached products, and the settings of the app that serves them."""

    name: str
    header: str = ""
    limit: float | None = None
    """Target: at most this many times the CPU of floor A."""
    env: tuple[tuple[str, str], ...] = ()
    """Settings that differ from the defaults."""
    suffix: str = ""
    """Of the path."""
    fresh: bool = False
    """Whether each request is for a list that was never requested before."""

    @property
    def scenario(self) -> Scenario:
        if self.fresh:
            return Scenario(self.name, _never_requested, fresh=True)
        lines = [f"GET /api/products/{id}{self.suffix} {self.header}".rstrip() for id in range(1, CACHED + 1)]
        return Scenario(self.name, lambda *_: iter(lines))


OFF = (("CACHE_RESPONSES", "false"),)
HIT = Case("hit", limit=3.0)
NOT_MODIFIED = Case("304", "If-None-Match: *", limit=3.0)
CASES: tuple[Case, ...] = (
    HIT,
    NOT_MODIFIED,
    Case("hit, compressed", "Accept-Encoding: gzip"),
    Case("hit, no access log", env=(("LOG_LEVEL", "WARNING"),)),
    Case("hit in Redis, not in memory", env=(("CACHE_MEMORY_ENTRIES", "1"),)),
    Case("cache off", env=OFF),
)
MISS = Case("miss, list of 20", fresh=True)
MISS_OFF = Case("the same, cache off", env=OFF, fresh=True)
MISS_LIMIT = 1.3
"""Target: CPU of a miss is at most this many times that of the same request with the cache off."""
CASES += (MISS, MISS_OFF)
USUAL_HIT = Case(f"{USUAL}, hit of a TTL cache", suffix="/cached")


def caching() -> None:
    with testbed(PRODUCTS) as bed:
        show(f"{CONNECTIONS} connections of {DRIVER}; {CACHED} products by id.\n")
        show(section(bed, launches=3, rounds=3, seconds=1))
        show(f"\n{asyncio.run(round_trips_of_a_miss(bed))}")


def section(bed: Testbed, launches: int, rounds: int, seconds: int) -> str:
    results: Results = {}
    for _ in range(launches):
        with bed.scope() as scope:
            merge(results, measure(scope, subjects(scope, scope.floors()["A"]), rounds, seconds))
    rows = table(["", "CPU µs/request", "× A", "× hit", "target"], list(_rows(results)))
    return f"{rows}\n\n{break_even(results)}" if MISS.name in results else rows


def break_even(results: Results) -> str:
    """The share of hits from which on a list costs less with the cache than without it."""
    hit, miss, off = (median_of(results[case.name], lambda each: each.cpu_us) for case in (HIT, MISS, MISS_OFF))
    share = max(0.0, (miss - off) / (miss - hit))
    return f"The cache pays from a hit rate of {share:.0%} on, by the medians of this table."


async def round_trips_of_a_miss(bed: Testbed) -> str:
    """Commands to Redis for a response that is not cached, heartbeats apart."""
    address = urlsplit(bed.servers.redis_url)
    async with WireRedis(address.hostname or "", address.port or 0) as redis:
        through = {"REDIS_URL": redis.through(bed.servers.redis_url), "CACHE_RESPONSES": "true"}
        server = bed.launch_app("app behind a proxy", through)
        server.wait_until_ready()
        async with AsyncClient(base_url=server.url) as client:
            for line in _never_requested(Random(), PRODUCTS, 2):
                with redis.counting() as count:
                    (await client.get(line.removeprefix("GET "))).raise_for_status()
                    await asyncio.sleep(0.1)  # the second is sent after the response
        sent = sum(command == "EVAL" for command in count.commands)
    return f"A miss sends {sent} commands to Redis, and waits for the first."


def _never_requested(random: Random, _products: int, count: int) -> Iterator[str]:
    first = random.getrandbits(40)
    for number in range(first, first + count):
        yield f"GET /api/products?category={number % 12 + 1}&min_price=0.01&max_price={10_000 + number // 12 % 10**6}"


def subjects(bed: Testbed, floor: Server) -> list[Subject]:
    """Start one app for each combination of settings, and the usual template."""
    apps: dict[tuple[tuple[str, str], ...], Server] = {}
    for case in CASES:
        if case.env not in apps:
            apps[case.env] = bed.launch_app(f"app {len(apps)}", {"CACHE_RESPONSES": "true", **dict(case.env)})
    for app in apps.values():
        app.wait_until_ready()
    return [
        Subject(BASELINE, floor, PING),
        *(Subject(case.name, apps[case.env], case.scenario) for case in CASES),
        Subject(USUAL_HIT.name, bed.usual_template(), USUAL_HIT.scenario),
    ]


def _rows(results: Results) -> Iterator[list[str]]:
    limits = {case.name: case.limit for case in CASES}
    for name, slices in results.items():
        times, times_hit = ratio(slices, results[BASELINE]), ratio(slices, results[HIT.name])
        cost = f"{median_of(slices, lambda each: each.cpu_us):,.0f}"
        verdict, limit = "", limits.get(name)
        if errors := sum(each.load.errors for each in slices):
            verdict = f"{errors} requests failed"
        elif limit:
            verdict = at_most(times, limit)
        elif name == MISS.name and MISS_OFF.name in results:
            verdict = f"{at_most(ratio(slices, results[MISS_OFF.name]), MISS_LIMIT)} of the next row"
        elif name == USUAL_HIT.name:
            verdict = at_least(times_hit, AHEAD)
        yield [name, cost, f"{times:.2f}", f"{times_hit:.2f}", verdict]
