"""`make bench-cache`: the cost of cached responses, relative to a ping of bare ASGI."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.compare import PRODUCTS
from benchmarks.figures import at_least, at_most, table
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, Subject, measure, median_of, merge, ratio, show
from benchmarks.scenarios import PING, Scenario
from benchmarks.servers import Server
from benchmarks.testbed import USUAL, Testbed, testbed

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

    @property
    def scenario(self) -> Scenario:
        lines = [f"GET /api/products/{id}{self.suffix} {self.header}".rstrip() for id in range(1, CACHED + 1)]
        return Scenario(self.name, lambda *_: iter(lines))


HIT = Case("hit", limit=3.0)
NOT_MODIFIED = Case("304", "If-None-Match: *", limit=3.0)
CASES = (
    HIT,
    NOT_MODIFIED,
    Case("hit, compressed", "Accept-Encoding: gzip"),
    Case("hit, no access log", env=(("LOG_LEVEL", "WARNING"),)),
    Case("hit in Redis, not in memory", env=(("CACHE_MEMORY_ENTRIES", "1"),)),
    Case("cache off", env=(("CACHE_RESPONSES", "false"),)),
)
USUAL_HIT = Case(f"{USUAL}, hit of a TTL cache", suffix="/cached")


def caching() -> None:
    with testbed(PRODUCTS) as bed:
        show(f"{CONNECTIONS} connections of {DRIVER}; {CACHED} products by id.\n")
        show(section(bed, launches=3, rounds=3, seconds=1))


def section(bed: Testbed, launches: int, rounds: int, seconds: int) -> str:
    results: Results = {}
    for _ in range(launches):
        with bed.scope() as scope:
            merge(results, measure(scope, subjects(scope, scope.floors()["A"]), rounds, seconds))
    return table(["", "CPU µs/request", "× A", "× hit", "target"], list(_rows(results)))


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
        elif name == USUAL_HIT.name:
            verdict = at_least(times_hit, AHEAD)
        yield [name, cost, f"{times:.2f}", f"{times_hit:.2f}", verdict]
