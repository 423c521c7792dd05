"""What becomes of the cost of a request as tables, workers and connections grow."""

import json
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.figures import table, verdict
from benchmarks.ground import Ground
from benchmarks.measure import Slice, middle, pool, take, take_together, write_lines
from benchmarks.processes import CORES, memory_megabytes
from benchmarks.scenarios import BY_ID, LIST, Scenario
from benchmarks.servers import Server
from plinth.testing.network import LOOPBACK

LARGE = 1_000_000
DEEP_PAGE = 10_000
PAGE_ROWS = 20
CONNECTIONS = (1, 8, 64, 256, 512)

SIZE_LIMIT = 1.2
WORKER_LIMIT = 1.1
GOODPUT_LIMIT = 0.9
MEMORY_LIMIT = 150.0

Kind = Callable[[int, Server], Scenario]
"""What to ask of a server with that many products."""


def sizes(here: Ground, app: Server, rounds: int, seconds: int) -> str:
    """CPU per request of the app and of PostgreSQL over a small and a large table."""
    servers = {here.products: app, LARGE: here.app("large app", DATABASE_URL=here.database("large", LARGE))}
    kinds: dict[str, Kind] = {
        "by id": lambda *_: BY_ID,
        "first page": lambda *_: LIST,
        f"page {DEEP_PAGE:,}": _deep_page,
    }
    rows = []
    for name, kind in kinds.items():
        (app_small, postgres_small), (app_large, postgres_large) = _costs(here, servers, kind, rounds, seconds)
        costs = [f"{cost:,.0f}" for cost in (app_small, app_large, postgres_small, postgres_large)]
        both = (app_large + postgres_large) / (app_small + postgres_small)
        rows.append([name, *costs, verdict(app_large / app_small, SIZE_LIMIT), verdict(both, SIZE_LIMIT)])
    head = ["CPU µs/request", "app, 10⁴ rows", "10⁶ rows", "PostgreSQL, 10⁴", "10⁶", "app ×", "both ×"]
    told = f"A table of {here.products:,} rows ends before page {DEEP_PAGE:,}: there it is its last but one."
    return f"{table(head, rows)}\n\n{told}"


def _costs(
    here: Ground, servers: Mapping[int, Server], kind: Kind, rounds: int, seconds: int
) -> tuple[tuple[float, float], ...]:
    """Of the app and of PostgreSQL, for each server."""
    asked: list[tuple[Server, Path, list[float], list[float]]] = []
    for products, server in servers.items():
        lines = here.directory / f"{products}.lines"
        lines.write_text("\n".join(kind(products, server).lines(Random(2026), products, 10_000)) + "\n")
        asked.append((server, lines, [], []))
    for _ in range(rounds):
        for server, lines, ours, its in asked:
            before = here.postgres_cpu_seconds()
            taken = take(server, lines, seconds)
            ours.append(taken.cpu_us)
            its.append((here.postgres_cpu_seconds() - before) / taken.load.requests * 1e6)
    return tuple((median(ours), median(its)) for *_, ours, its in asked)


def _deep_page(products: int, server: Server) -> Scenario:
    rows = min(DEEP_PAGE, products // PAGE_ROWS - 1) * PAGE_ROWS - PAGE_ROWS
    connection, cursor = HTTPConnection(LOOPBACK, server.port, timeout=10), ""
    while rows:
        step = min(100, rows)
        connection.request("GET", f"/api/products?limit={step}{cursor}")
        cursor = f"&cursor={json.load(connection.getresponse())['next_cursor']}"
        rows -= step
    connection.close()
    return Scenario("deep page", lambda *_: iter([f"GET /api/products?limit={PAGE_ROWS}{cursor}"]))


def workers(here: Ground, launches: int, rounds: int, seconds: int) -> str:
    """Two workers beside one, and beside two services at once that share nothing but the cores."""
    taken: dict[str, list[list[Slice]]] = {}
    for _ in range(launches):
        with here.anew() as fresh:
            pool(taken, _crowds(fresh, rounds, seconds))
    rates = {name: median(sum(each.rate for each in slices) for slices in every) for name, every in taken.items()}
    costs = {name: [_cost(slices) for slices in every] for name, every in taken.items()}
    rows = [[name, f"{rates[name]:,.0f}", f"{median(costs[name]):,.0f}"] for name in taken]
    shared, alone, crowd = (
        median(ours / its for ours, its in zip(costs[name], costs[floor], strict=True))
        for name, floor in (("2 workers", "2 services"), ("2 workers", "1 worker"), ("2 services", "1 worker"))
    )
    told = (
        f"Two workers use × {verdict(shared, WORKER_LIMIT)} of the CPU per request of two services of one worker each,"
        f" which are asked at once, and × {verdict(alone, WORKER_LIMIT)} of one worker alone."
        f" Two services use × {crowd:.2f} of that: it is the price of company on these cores,"
        " where PostgreSQL and the driver are too."
    )
    return f"{table(['product by id', 'requests/s', 'CPU µs/request'], rows)}\n\n{told}"


def _crowds(here: Ground, rounds: int, seconds: int) -> Mapping[str, list[list[Slice]]]:
    """The slices of each round, one for each server that was asked at once."""
    one, other = here.app("one", set(CORES)), here.app("other", set(CORES))
    two = here.app("two workers", set(CORES), WEB_CONCURRENCY="2")
    lines = write_lines(here, BY_ID, Random(2026), seconds)
    kinds: dict[str, Callable[[], list[Slice]]] = {
        "1 worker": lambda: [take(one, lines, seconds)],
        "2 services": lambda: take_together([one, other], [lines] * 2, seconds),
        "2 workers": lambda: [take(two, lines, seconds)],
    }
    taken: dict[str, list[list[Slice]]] = {name: [] for name in kinds}
    for number in range(rounds):
        for name in kinds if number % 2 else reversed(kinds):
            taken[name].append(kinds[name]())
    return taken


def _cost(slices: Sequence[Slice]) -> float:
    return sum(each.cpu_seconds for each in slices) / sum(each.load.requests for each in slices) * 1e6


def connections(here: Ground, servers: Sequence[Server], rounds: int, seconds: int) -> str:
    """Whether more connections than it can serve make it serve less: of the last server, and of floors beside it."""
    lines = write_lines(here, BY_ID, Random(2026), seconds)
    slices: dict[str, dict[int, list[Slice]]] = {each.name: {count: [] for count in CONNECTIONS} for each in servers}
    for _ in range(rounds):
        for server in servers:
            for count, taken in slices[server.name].items():
                taken.append(take(server, lines, seconds, count))
    goods = {name: {count: _goodput(taken) for count, taken in counts.items()} for name, counts in slices.items()}
    rows = []
    for count in CONNECTIONS:
        taken = slices[servers[-1].name][count]
        times = [
            f"{middle(taken, figure):.1f}" for figure in (lambda each: each.load.p50_ms, lambda each: each.load.p99_ms)
        ]
        shares = [f"{good[count]:,.0f} ({good[count] / max(good.values()):.0%})" for good in goods.values()]
        rows.append([str(count), *shares, *times, str(sum(each.load.errors for each in taken))])
    last = goods[servers[-1].name]
    share = last[CONNECTIONS[-1]] / max(last.values())
    head = ["connections", *(f"{name}, good answers/s" for name in goods), "p50 ms", "p99 ms", "errors"]
    told = (
        f"Goodput at {CONNECTIONS[-1]} connections is {share:.0%} of the peak (target: at least {GOODPUT_LIMIT:.0%})."
    )
    how = f"Answers are counted over all {rounds} rounds of {seconds} s; in brackets, the share of the peak."
    return f"{table(head, rows)}\n\n{how} Times and errors are the app's. {told}"


def _goodput(slices: Sequence[Slice]) -> float:
    """Over all of the time: a median would be of a few rounds, in each of which the machine is another one."""
    good = sum(each.load.requests - each.load.errors for each in slices)
    return good / sum(each.load.seconds for each in slices)


def memory(app: Server) -> str:
    rss, pss = memory_megabytes(app.workers[0])
    return f"After all this, a worker holds {verdict(rss, MEMORY_LIMIT)} MB (RSS; {pss:.0f} MB without what it shares)."
