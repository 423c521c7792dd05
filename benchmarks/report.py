"""`make bench`: everything, written to docs/benchmarks.md with its plot and the machine."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import caching, scale
from benchmarks.compare import PRODUCTS, Compared, compare, section
from benchmarks.figures import table, verdict
from benchmarks.ground import Ground, ground
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, middle, ratio, say
from benchmarks.peers import peers
from benchmarks.plot import Group, bars
from benchmarks.processes import CORES
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import ROOT, Server
from plinth.testing.locks import SetupError

# Many short rounds: servers that are compared are asked within seconds of one another.
LAUNCHES, ROUNDS, SECONDS = 3, 15, 1
PING_LIMIT_US = 60.0
PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = PAGE.with_suffix(".svg")

TEXT = """# Benchmarks

Written by `make bench` on {date}: {rounds} rounds of {seconds} s, twice as many of writes and of workers, {connected}
connections of {driver} to each worker.

{machine}

Absolute figures are this machine's. What carries over to another one are ratios, and those are what
`make bench-check` holds the service to.

## How it is measured

- **Floor A** is bare ASGI: a ping. **Floor B** is bare ASGI, asyncpg's pool without its reset query, and orjson.
  **Floor C** is FastAPI with one typed route each over asyncpg and no middleware. All read the same tables with the
  same joins, and answer byte for byte what the app answers; a test compares them.
- **The app** is what ships: `app serve` with its defaults, all middleware, production settings, and its access log on;
  only the cache of answers is off, so that each one is made. A ping is `/health/live`, a probe, which has no line in
  that log: what a line costs is seen of [kept answers](#kept-answers).
- One worker each, pinned to a core of its own, where the disk interrupts least; the driver and PostgreSQL have the
  others. Uvicorn on uvloop and httptools for all. Ids and words are random over {products:,} products.
- All servers of a table are asked in turn, round after round. CPU is what the kernel charged the server's process
  (user and system) during its turn, divided by the requests. Figures are medians over the rounds; a ratio is the median
  of the ratios within each round; min–max is of the CPU over the rounds.
- The tables of the floors, of kept answers and of workers are of {launches} launches, each with processes of its own,
  whose rounds are counted together.

## Against the floors

![CPU per request of the floors and the app](benchmarks.svg)

{scenarios}

### Targets

{targets}

## Kept answers

A product by id with the cache on, as it ships (`make bench-cache`), of {asked} that are asked for again and again.

{cached}

## Scale

### Table sizes

{sizes}

### Workers

{workers}

### Connections

{connections}

### Memory

{memory}

## Other frameworks

The same ping and the same product by id, as each framework's own guide serves it, one process each; the newest
releases, installed when this was written. The sources are in [benchmarks/frameworks](../benchmarks/frameworks).

{peers}

## Run it yourself

| command | what it does |
|---|---|
| `make bench` | all of this, in about twenty minutes; wrk is used where it is installed |
| `make bench-quick` | the floors and the app, printed, in under two minutes |
| `make bench-cache` | what kept answers cost, printed, in three minutes |
| `make bench-check` | compare ratios and wire counts with [the recorded ones](../benchmarks/recorded.json) |
| `make bench-soak MINUTES=60` | load for an hour, and whether memory stays flat |
| `make loadtest` | users of locust, with the service objectives as pass marks |
"""


def report() -> None:
    """In about twenty minutes, most of which go into the tables."""
    PAGE.parent.mkdir(exist_ok=True)
    with ground(PRODUCTS) as here:
        compared = compare(here, SCENARIOS, LAUNCHES, ROUNDS // LAUNCHES, SECONDS)
        cached = _told(caching.section(here, LAUNCHES, ROUNDS // LAUNCHES, SECONDS))
        app = here.app()
        sections = {
            "machine": _machine(here),
            "scenarios": "\n\n".join(map(section, compared)),
            "targets": _targets(compared),
            "cached": cached,
            # Long enough that it is not to connect what is measured.
            "connections": _told(scale.connections(here, [here.floors()["C"], app], 12, 3 * SECONDS)),
            "peers": _told(_peers(here, app)),
            "workers": _told(scale.workers(here, LAUNCHES, 2 * ROUNDS // LAUNCHES, SECONDS)),
            "sizes": _told(scale.sizes(here, app, ROUNDS, SECONDS)),
            "memory": _told(scale.memory(app)),  # after all that was asked of it
        }
    PAGE.write_text(
        TEXT.format(
            date=time.strftime("%Y-%m-%d"),
            rounds=ROUNDS,
            launches=LAUNCHES,
            seconds=SECONDS,
            connected=CONNECTIONS,
            driver=DRIVER,
            products=PRODUCTS,
            asked=caching.ASKED,
            **sections,
        )
    )
    PLOT.write_text(bars("CPU µs per request", [_group(*each) for each in compared]))
    say(f"Written to {PAGE.relative_to(ROOT)}.")


def _told(text: str) -> str:
    say(f"\n{text}")
    return text


def _targets(compared: Sequence[Compared]) -> str:
    rows = []
    for scenario, results in compared:
        app = results["app"]
        if scenario.limit:
            floor, limit = scenario.against, scenario.limit
            rows.append([f"{scenario.name}, × floor {floor}", verdict(ratio(app, results[f"floor {floor}"]), limit)])
        else:
            above = median(ours.cpu_us - its.cpu_us for ours, its in zip(app, results["floor A"], strict=True))
            rows.append([f"{scenario.name}, µs above floor A", verdict(above, PING_LIMIT_US)])
    return table(["CPU per request", "target"], rows)


def _peers(here: Ground, app: Server) -> str:
    try:
        return peers(here, app, ROUNDS, SECONDS)
    except SetupError as error:
        say(str(error))
        return "Not measured this time: they could not be installed."


def _group(scenario: Scenario, results: Results) -> Group:
    return scenario.name, {name: middle(slices, lambda each: each.cpu_us) for name, slices in results.items()}


def _machine(here: Ground) -> str:
    known = dict(line.split("\t", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if "\t" in line)
    cpu = known.get("model name", platform.machine()).lstrip("\t: ")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    rows = [
        ["CPU", f"{cpu}, {len(CORES)} cores"],
        ["Memory", f"{memory:.0f} GB"],
        ["System", f"{system}, Linux {platform.release()}"],
        ["Python", platform.python_version()],
        ["PostgreSQL", str(here.ask("SHOW server_version"))],
    ]
    return table(["machine", ""], rows)
