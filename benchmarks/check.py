"""`make bench-check`: compares ratios of CPU time and wire counts of a request with the recorded ones.

Seconds are not compared, since they depend on the machine. To raise a recorded number, run with `RECORD=1` and give the
reason in the commit.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import bearer, caching
from benchmarks.compare import PRODUCTS
from benchmarks.measure import Subject, measure_at_once, ratio, show
from benchmarks.scenarios import BY_ID, PING, SCENARIOS
from benchmarks.testbed import USUAL, Testbed, testbed
from benchmarks.wire import wire_counts

RECORDED = Path(__file__).with_name("recorded.json")
MARGIN = 0.15

Costs = Mapping[str, Mapping[str, float]]
"""By the name of the check, and by what is counted."""


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
    without, behind = (Subject(each.name, bed.secured_app(each.name), each) for each in bearer.SCENARIOS)
    yield Check("HTTPBearer", "CPU × without it", behind, without)
    usual = Subject(USUAL, bed.usual_template(), BY_ID)
    yield Check(f"{USUAL}, by id", f"CPU × {USUAL}", Subject("app", app, BY_ID), usual)


def check(record: bool) -> int:
    """Returns the exit code: 1 if a cost exceeds its recorded value by more than the margin."""
    recorded: Costs = {} if record else json.loads(RECORDED.read_text())
    costs: dict[str, dict[str, float]] = {}
    with testbed(PRODUCTS) as bed:
        wire = asyncio.run(wire_counts(bed))
        for each in checks(bed):
            figures = {**wire.get(each.name, {}), each.key: _ratio(bed, each)}
            if recorded and verdicts({each.name: figures}, recorded):
                figures[each.key] = min(figures[each.key], _ratio(bed, each))  # to rule out noise
            shown = ", ".join(f"{name} {value:g}" for name, value in figures.items() if value)
            show(f"{each.name:21} {shown}")
            costs[each.name] = figures
    if record:
        RECORDED.write_text(json.dumps(costs, indent=2, ensure_ascii=False) + "\n")
        return 0
    found = verdicts(costs, recorded)
    show("\n".join(found) or "No cost exceeds its recorded value.")
    return bool(found)


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
