"""How the cost of a request changes with the size of tables and the number of workers and connections."""

import json
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.figures import at_most, table
from benchmarks.measure import Slice, measure_slice, measure_slices_at_once, median_of, merge, write_lines
from benchmarks.processes import CORES, memory_megabytes
from benchmarks.scenarios import BY_ID, LIST, Scenario
from benchmarks.servers import Server
from benchmarks.testbed import Testbed
from plinth.testing.network import LOOPBACK

LARGE = 1_000_000
DEEP_PAGE = 10_000
PAGE_ROWS = 20
CONNECTIONS = (1, 8, 64, 256, 512)

SIZE_LIMIT = 1.2
WORKER_LIMIT = 1.1
GOODPUT_LIMIT = 0.9
MEMORY_LIMIT = 150.0

ScenarioFactory = Callable[[int, Server], Scenario]
"""Makes the scenario for a server whose table has that many products."""


def sizes(bed: Testbed, app: Server, rounds: int, seconds: int, large: int = LARGE) -> str:
    """CPU per request of the app and of PostgreSQL with a small and a large table."""
    servers = {bed.products: app, large: bed.app("large app", DATABASE_URL=bed.create_database("large", large))}
    factories: dict[str, ScenarioFactory] = {
        "by id": lambda *_: BY_ID,
        "first page": lambda *_: LIST,
        f"page {DEEP_PAGE:,}": _deep_page,
    }
    rows = []
    for name, factory in factories.items():
        (app_small, postgres_small), (app_large, postgres_large) = _costs(bed, servers, factory, rounds, seconds)
        costs = [f"{cost:,.0f}" for cost in (app_small, app_large, postgres_small, postgres_large)]
        both = (app_large + postgres_large) / (app_small + postgres_small)
        rows.append([name, *costs, at_most(app_large / app_small, SIZE_LIMIT), at_most(both, SIZE_LIMIT)])
    head = ["CPU µs/request", "app, 10⁴ rows", "10⁶ rows", "PostgreSQL, 10⁴", "10⁶", "app ×", "both ×"]
    note = (
        f"A table of {bed.products:,} rows has fewer than {DEEP_PAGE:,} pages; its last page but one is measured there."
    )
    return f"{table(head, rows)}\n\n{note}"


def _costs(
    bed: Testbed, servers: Mapping[int, Server], factory: ScenarioFactory, rounds: int, seconds: int
) -> tuple[tuple[float, float], ...]:
    """CPU per request of the app and of PostgreSQL, for each server."""
    measured: list[tuple[Server, Path, list[float], list[float]]] = []
    for products, server in servers.items():
        lines = bed.directory / f"{products}.lines"
        lines.write_text("\n".join(factory(products, server).lines(Random(2026), products, 10_000)) + "\n")
        measured.append((server, lines, [], []))
    for _ in range(rounds):
        for server, lines, of_app, of_postgres in measured:
            before = bed.postgres_cpu_seconds()
            taken = measure_slice(server, lines, seconds)
            of_app.append(taken.cpu_us)
            of_postgres.append((bed.postgres_cpu_seconds() - before) / taken.load.requests * 1e6)
    return tuple((median(of_app), median(of_postgres)) for *_, of_app, of_postgres in measured)


def _deep_page(products: int, server: Server) -> Scenario:
    """Follows the cursors to a deep page, and requests that page."""
    rows = min(DEEP_PAGE, products // PAGE_ROWS - 1) * PAGE_ROWS - PAGE_ROWS
    connection, cursor = HTTPConnection(LOOPBACK, server.port, timeout=10), ""
    while rows:
        step = min(100, rows)
        connection.request("GET", f"/api/products?limit={step}{cursor}")
        cursor = f"&cursor={json.load(connection.getresponse())['next_cursor']}"
        rows -= step
    connection.close()
    return Scenario("deep page", lambda *_: iter([f"GET /api/products?limit={PAGE_ROWS}{cursor}"]))


def workers(bed: Testbed, launches: int, rounds: int, seconds: int) -> str:
    """Two workers, compared with one, and with two services at once, which share nothing but the cores."""
    taken: dict[str, list[list[Slice]]] = {}
    for _ in range(launches):
        with bed.scope() as scope:
            merge(taken, _measure_workers(scope, rounds, seconds))
    rates = {name: median(sum(each.rate for each in slices) for slices in every) for name, every in taken.items()}
    costs = {name: [_cost(slices) for slices in every] for name, every in taken.items()}
    rows = [[name, f"{rates[name]:,.0f}", f"{median(costs[name]):,.0f}"] for name in taken]
    shared, alone, services = (
        median(ours / its for ours, its in zip(costs[name], costs[reference], strict=True))
        for name, reference in (
            ("2 workers", "2 services"),
            ("2 workers", "1 worker"),
            ("2 services", "1 worker"),
        )
    )
    note = (
        f"Two workers use × {at_most(shared, WORKER_LIMIT)} of the CPU per request of two services of one worker each,"
        f" which are measured at the same time, and × {at_most(alone, WORKER_LIMIT)} of one worker alone."
        f" Two services use × {services:.2f} of that: the cost of sharing the caches of the CPU with each other,"
        " PostgreSQL and the driver."
    )
    return f"{table(['product by id', 'requests/s', 'CPU µs/request'], rows)}\n\n{note}"


def _measure_workers(bed: Testbed, rounds: int, seconds: int) -> Mapping[str, list[list[Slice]]]:
    """The slices of each round, one for each server that was measured at the same time."""
    one, other = bed.app("one", set(CORES)), bed.app("other", set(CORES))
    two = bed.app("two workers", set(CORES), WEB_CONCURRENCY="2")
    lines = write_lines(bed, BY_ID, Random(2026), seconds)
    kinds: dict[str, Callable[[], list[Slice]]] = {
        "1 worker": lambda: [measure_slice(one, lines, seconds)],
        "2 services": lambda: measure_slices_at_once([one, other], [lines] * 2, seconds),
        "2 workers": lambda: [measure_slice(two, lines, seconds)],
    }
    taken: dict[str, list[list[Slice]]] = {name: [] for name in kinds}
    for number in range(rounds):
        for name in kinds if number % 2 else reversed(kinds):
            taken[name].append(kinds[name]())
    return taken


def _cost(slices: Sequence[Slice]) -> float:
    return sum(each.cpu_seconds for each in slices) / sum(each.load.requests for each in slices) * 1e6


def connections(bed: Testbed, floor: Server, app: Server, rounds: int, seconds: int) -> str:
    """Goodput of the app, and of a floor beside it, by the number of connections."""
    lines = write_lines(bed, BY_ID, Random(2026), seconds)
    slices: dict[str, dict[int, list[Slice]]] = {
        server.name: {count: [] for count in CONNECTIONS} for server in (floor, app)
    }
    for _ in range(rounds):
        for server in (floor, app):
            for count, taken in slices[server.name].items():
                taken.append(measure_slice(server, lines, seconds, count))
    rates = {name: {count: _goodput(taken) for count, taken in counts.items()} for name, counts in slices.items()}
    rows = []
    for count in CONNECTIONS:
        taken = slices[app.name][count]
        p50, p99 = (median_of(taken, lambda each: each.load.p50_ms), median_of(taken, lambda each: each.load.p99_ms))
        shares = [f"{rate[count]:,.0f} ({rate[count] / max(rate.values()):.0%})" for rate in rates.values()]
        rows.append([str(count), *shares, f"{p50:.1f}", f"{p99:.1f}", str(sum(each.load.errors for each in taken))])
    share = rates[app.name][CONNECTIONS[-1]] / max(rates[app.name].values())
    head = ["connections", *(f"{name}, goodput/s" for name in rates), "p50 ms", "p99 ms", "errors"]
    note = (
        f"Goodput is the rate of responses without an error over all {rounds} rounds of {seconds} s; in brackets, the"
        " share of the peak. Times and errors are the app's."
        f" Goodput at {CONNECTIONS[-1]} connections is {share:.0%} of the peak (target: at least {GOODPUT_LIMIT:.0%})."
    )
    return f"{table(head, rows)}\n\n{note}"


def _goodput(slices: Sequence[Slice]) -> float:
    """Over the whole time, because the machine changes from round to round and a median would pick one of them."""
    good = sum(each.load.requests - each.load.errors for each in slices)
    return good / sum(each.load.seconds for each in slices)


def memory(app: Server) -> str:
    rss, pss = memory_megabytes(app.workers[0])
    return f"After these measurements a worker holds {at_most(rss, MEMORY_LIMIT)} MB (RSS; PSS {pss:.0f} MB)."
