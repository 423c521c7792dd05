"""`make bench`: measures everything; writes docs/benchmarks.md, its chart, and README's table."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bearer, caching, scale
from benchmarks.compare import PRODUCTS, compare, section, targets
from benchmarks.figures import table
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, median_of, show
from benchmarks.peers import peers
from benchmarks.plot import Group, bars
from benchmarks.processes import CORES
from benchmarks.readme import update_readme
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import ROOT, Server
from benchmarks.testbed import Testbed, testbed
from plinth.testing.locks import SetupError

PAGE = ROOT / "docs" / "benchmarks.md"
CHART = PAGE.with_suffix(".svg")
TEMPLATE = Path(__file__).with_name("page.md")
SECONDS = 1


@dataclass(frozen=True)
class Effort:
    launches: int
    rounds: int
    """For each launch; writes get one more."""
    goodput_rounds: int
    goodput_seconds: int
    other_rounds: int
    """Of table sizes, workers (in each launch) and other frameworks."""
    large: int
    """Rows of the large table."""


# Many short rounds: the servers that are compared are measured within seconds of each other.
FULL = Effort(launches=3, rounds=3, goodput_rounds=4, goodput_seconds=3, other_rounds=3, large=scale.LARGE)
SMOKE = Effort(launches=1, rounds=1, goodput_rounds=1, goodput_seconds=1, other_rounds=1, large=2 * PRODUCTS)


def report(smoke: bool) -> None:
    """Takes about twelve minutes; `smoke` runs everything once and writes no file."""
    page, chart = _measure(SMOKE if smoke else FULL)
    if smoke:
        show(f"\n{page}")
        return
    PAGE.write_text(page)
    CHART.write_text(chart)
    update_readme(page)
    show(f"Wrote {PAGE.relative_to(ROOT)} and the table of README.md.")


def _measure(effort: Effort) -> tuple[str, str]:
    launches, rounds, others = effort.launches, effort.rounds, effort.other_rounds
    with testbed(PRODUCTS) as bed:
        compared = compare(bed, SCENARIOS, launches, rounds, SECONDS)
        sections = {
            "machine": _machine(bed),
            "scenarios": "\n\n".join(map(section, compared)),
            "targets": _shown(targets(compared)),
            "cached": _shown(caching.section(bed, launches, rounds, SECONDS)),
            "bearer": _shown(bearer.section(bed, launches, rounds, SECONDS)),
        }
        app, floor = bed.app(), bed.floors()["C"]
        sections |= {
            # Of several seconds each, so that the time to open the connections does not count.
            "connections": _shown(scale.connections(bed, floor, app, effort.goodput_rounds, effort.goodput_seconds)),
            "peers": _shown(_peers(bed, app, others)),
            "workers": _shown(scale.workers(bed, launches, others, SECONDS)),
            "sizes": _shown(scale.sizes(bed, app, others, SECONDS, effort.large)),
            "memory": _shown(scale.memory(app)),  # last, after the app has served all of the above
        }
    page = TEMPLATE.read_text().format(
        date=time.strftime("%Y-%m-%d"),
        launches=launches,
        rounds=rounds,
        seconds=SECONDS,
        connection_count=CONNECTIONS,
        driver=DRIVER,
        products=PRODUCTS,
        cached_products=caching.CACHED,
        **sections,
    )
    return page, bars("CPU µs per request", [_group(*each) for each in compared])


def _shown(text: str) -> str:
    show(f"\n{text}")
    return text


def _peers(bed: Testbed, app: Server, rounds: int) -> str:
    try:
        return peers(bed, app, rounds, SECONDS)
    except SetupError as error:
        show(str(error))
        return "Not measured this time: they could not be installed."


def _group(scenario: Scenario, results: Results) -> Group:
    return scenario.name, {name: median_of(slices, lambda each: each.cpu_us) for name, slices in results.items()}


def _machine(bed: Testbed) -> str:
    known = dict(line.split("\t", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if "\t" in line)
    cpu = known.get("model name", platform.machine()).lstrip("\t: ")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    rows = [
        ["CPU", f"{cpu}, {len(CORES)} cores"],
        ["Memory", f"{memory:.0f} GB"],
        ["System", f"{system}, Linux {platform.release()}"],
        ["Python", platform.python_version()],
        ["PostgreSQL", str(bed.execute("SHOW server_version"))],
    ]
    return table(["machine", ""], rows)
