"""`make bench-observability`: what logs, metrics and records of requests cost, relative to a ping of bare ASGI."""

import sys
from statistics import median

from benchmarks.caching import BASELINE, HIT
from benchmarks.compare import PRODUCTS
from benchmarks.figures import at_most, table
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, Subject, measure, median_of, merge, ratio, show
from benchmarks.scenarios import BY_ID, LIST, PING
from benchmarks.servers import ROOT
from benchmarks.testbed import Testbed, testbed

MOST_ADDED = 0.7
"""Target: what is reported of a request costs at most this many times the CPU of floor A, which is about 20 µs."""
MOST_OF_HIT = 3.8
SCENARIOS = (BY_ID, LIST, HIT.scenario)
SILENT = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "benchmarks.silent:app"]
LAUNCHES, ROUNDS, SECONDS = 3, 3, 1


def observability() -> int:
    """Print the costs. Returns the exit code: 1 if a target is missed."""
    results: Results = {}
    with testbed(PRODUCTS) as bed:
        show(f"{CONNECTIONS} connections of {DRIVER}; medians of {LAUNCHES} launches of {ROUNDS} rounds.\n")
        for _ in range(LAUNCHES):
            with bed.scope() as scope:
                merge(results, measure(scope, subjects(scope), ROUNDS, SECONDS))
    rows, missed = judged(results)
    show(table(["", "silent µs", "app µs", "added µs", "added × A", "app × A", "target"], rows))
    return missed


def subjects(bed: Testbed) -> list[Subject]:
    app = bed.app(CACHE_RESPONSES="true")
    silent = bed.start_app("silent app", SILENT, CACHE_RESPONSES="true", DATABASE_STATEMENT_COMMENTS="false")
    pairs = ((app, ""), (silent, ", silent"))
    measured = [Subject(each.name + suffix, server, each) for each in SCENARIOS for server, suffix in pairs]
    return [Subject(BASELINE, bed.floors()["A"], PING), *measured]


def judged(results: Results) -> tuple[list[list[str]], bool]:
    """The rows of the table, and whether a target is missed."""
    rows, missed = [], False
    for name in (each.name for each in SCENARIOS):
        app, silent, floor = results[name], results[f"{name}, silent"], results[BASELINE]
        added = median(
            (with_all.cpu_us - without.cpu_us) / base.cpu_us
            for with_all, without, base in zip(app, silent, floor, strict=True)
        )
        of_floor = ratio(app, floor)
        costs = [median_of(each, lambda slice: slice.cpu_us) for each in (silent, app)]
        verdicts = [at_most(added, MOST_ADDED)]
        missed |= added > MOST_ADDED
        if name == HIT.name:
            verdicts.append(at_most(of_floor, MOST_OF_HIT))
            missed |= of_floor > MOST_OF_HIT
        shown = [f"{costs[0]:,.0f}", f"{costs[1]:,.0f}", f"{costs[1] - costs[0]:,.0f}"]
        rows.append([name, *shown, f"{added:.2f}", f"{of_floor:.2f}", "; ".join(verdicts)])
    return rows, missed
