"""`make bench-check`: compares ratios of CPU time and wire counts of a request with the recorded ones.

Seconds are not compared, since they depend on the machine. To raise a recorded number, run with `RECORD=1` and give the
reason in the commit.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import bearer, caching
from benchmarks.compare import PRODUCTS
from benchmarks.measure import Subject, measure_at_once, ratio, show
from benchmarks.scenarios import BY_ID, PING, SCENARIOS
from benchmarks.testbed import USUAL, Testbed, testbed
from benchmarks.wire import wire_counts

RECORDED = Path(__file__).with_name("recorded.json")
MARGIN = 0.15
LAUNCHES = 3

Figures = Mapping[str, float]
"""By what is counted."""
Costs = Mapping[str, Figures]
"""By the name of the check."""


class Check(NamedTuple):
    """A pair of subjects whose ratio of CPU per request is compared with the recorded one."""

    name: str
    key: str
    """Of the ratio in the recorded costs."""
    subject: Subject
    reference: Subject


def checks(bed: Testbed) -> Iterator[Check]:
    """Each scenario against its floor; cached responses, security and the usual template with one pair each.

    Every pair consists of two servers, because both are measured at the same time.
    """
    floors, app = bed.floors(), bed.app()
    for scenario in SCENARIOS:
        floor = Subject("floor", floors[scenario.against], scenario)
        yield Check(scenario.name, f"CPU × floor {scenario.against}", Subject("app", app, scenario), floor)
    cached = bed.app("cached app", CACHE_RESPONSES="true")
    for case in (caching.HIT, caching.NOT_MODIFIED):
        ping = Subject(caching.BASELINE, floors["A"], PING)
        yield Check(f"cached {case.name}", "CPU × floor A", Subject(case.name, cached, case.scenario), ping)
    without, behind, signed_in = (
        Subject(each.name, bed.secured_app(each.name), each) for each in bearer.scenarios(bed.authorization)
    )
    yield Check("HTTPBearer", "CPU × without it", behind, without)
    yield Check("signed in", "CPU × without it", signed_in, without)
    usual = Subject(USUAL, bed.usual_template(), BY_ID)
    yield Check(f"{USUAL}, by id", f"CPU × {USUAL}", Subject("app", app, BY_ID), usual)


def check(record: bool) -> int:
    """Returns the exit code: 1 if a cost exceeds its recorded value by more than the margin.

    The layout of a process in memory can make all of its rounds cost more. So what exceeds its recorded value is
    measured again with new processes, and the lowest counts. What is recorded is the median of as many launches.
    """
    recorded: Costs = json.loads(RECORDED.read_text())
    with testbed(PRODUCTS) as bed:
        wire = asyncio.run(wire_counts(bed))
        measured = {name: [figures] for name, figures in _launched(bed, wire, None)}
        for _ in range(LAUNCHES - 1):
            again = set(measured) if record else exceeding(each_figure(min, measured), recorded)
            for name, figures in _launched(bed, wire, again) if again else ():
                measured[name].append(figures)
    if record:
        RECORDED.write_text(json.dumps(each_figure(median, measured), indent=2, ensure_ascii=False) + "\n")
        return 0
    found = verdicts(each_figure(min, measured), recorded)
    show("\n".join(found) or "No cost exceeds its recorded value.")
    return bool(found)


def each_figure(choose: Callable[[Iterable[float]], float], measured: Mapping[str, Sequence[Figures]]) -> Costs:
    """One value for each figure, chosen from those of all launches."""
    return {
        name: {key: choose(figures[key] for figures in launches) for key in launches[0]}
        for name, launches in measured.items()
    }


def exceeding(costs: Costs, recorded: Costs) -> set[str]:
    """The names of the checks that fail."""
    return {name for name, figures in costs.items() if verdicts({name: figures}, recorded)}


def _launched(bed: Testbed, wire: Costs, names: Set[str] | None) -> Iterator[tuple[str, Figures]]:
    """Measure all checks, or those that are named, with servers that are started for it."""
    with bed.scope() as scope:
        for each in checks(scope):
            if names is None or each.name in names:
                figures = {**wire.get(each.name, {}), each.key: _ratio(scope, each)}
                shown = ", ".join(f"{name} {value:g}" for name, value in figures.items() if value)
                show(f"{each.name:21} {shown}")
                yield each.name, figures


def verdicts(costs: Costs, recorded: Costs) -> list[str]:
    """A sentence for each cost that exceeds its recorded value by more than the margin, or has none."""
    found = []
    for name, figures in costs.items():
        for key, value in figures.items():
            limit = recorded.get(name, {}).get(key)
            if limit is None:
                found.append(f"{name}: {key} is {value:g} and not recorded. Run `make bench-check RECORD=1`.")
            elif value > limit * (1 + MARGIN):
                found.append(f"{name}: {key} is {value:g}, recorded is {limit:g}. Fix it, or record it with a reason.")
    return found


def _ratio(bed: Testbed, check: Check) -> float:
    results = measure_at_once(bed, [check.reference, check.subject], rounds=2, seconds=2)
    return round(ratio(results[check.subject.name], results[check.reference.name]), 2)
