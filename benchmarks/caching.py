"""`make bench-cache`: what a kept answer costs beside bare ASGI, and what its parts do."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.compare import PRODUCTS
from benchmarks.figures import table, verdict
from benchmarks.ground import Ground, ground
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, middle, pool, ratio, say, take
from benchmarks.servers import Server

FLOOR = "a ping of bare ASGI"
ASKED = 100  # products, over and over


@dataclass(frozen=True)
class Case:
    name: str
    header: str = ""
    limit: float | None = None
    """The target: at most this many times the CPU of floor A."""
    env: tuple[tuple[str, str], ...] = ()
    """What differs from the defaults."""


HIT = Case("hit", limit=2.5)
CASES = (
    HIT,
    Case("304", "If-None-Match: *", limit=2.2),
    Case("hit, compressed", "Accept-Encoding: gzip"),
    Case("hit, no access log", env=(("LOG_LEVEL", "WARNING"),)),
    Case("hit in Redis, not in memory", env=(("CACHE_MEMORY_ENTRIES", "1"),)),
    Case("nothing kept", env=(("CACHE_RESPONSES", "false"),)),
)


def caching() -> None:
    with ground(PRODUCTS) as here:
        say(f"{CONNECTIONS} connections of {DRIVER}; {ASKED} products by id.\n")
        say(section(here, launches=3, rounds=5, seconds=1))


def section(here: Ground, launches: int, rounds: int, seconds: int) -> str:
    results: Results = {}
    for _ in range(launches):
        with here.anew() as fresh:
            pool(results, measure(fresh, fresh.floors()["A"], CASES, rounds, seconds))
    return table(["", "CPU µs/request", "× A", "target"], list(_rows(results)))


def measure(here: Ground, floor: Server, cases: tuple[Case, ...], rounds: int, seconds: int) -> Results:
    ping = here.directory / "ping of floor A.lines"
    ping.write_text("GET /health/live\n")
    servers: dict[tuple[tuple[str, str], ...], Server] = {}
    for case in cases:
        if case.env not in servers:
            servers[case.env] = here.launch_app(f"app {len(servers)}", {"CACHE_RESPONSES": "true", **dict(case.env)})
            servers[case.env].wait_until_ready()
    results: Results = {FLOOR: [], **{case.name: [] for case in cases}}
    for _ in range(rounds):
        results[FLOOR].append(take(floor, ping, seconds))
        for case in cases:
            lines = here.directory / f"{case.name}.lines"
            lines.write_text("".join(f"GET /api/products/{id} {case.header}\n" for id in range(1, ASKED + 1)))
            results[case.name].append(take(servers[case.env], lines, seconds))
    return results


def _rows(results: Results) -> Iterator[list[str]]:
    limits = {case.name: case.limit for case in CASES}
    for name, slices in results.items():
        times, limit = ratio(slices, results[FLOOR]), limits.get(name)
        cost = f"{middle(slices, lambda each: each.cpu_us):,.0f}"
        errors = sum(each.load.errors for each in slices)
        told = f"{errors} requests failed" if errors else verdict(times, limit) if limit else ""
        yield [name, cost, f"{times:.2f}", told]
