"""`make bench-check`: what a request costs, in ratios and in counts, against what is recorded.

Never in seconds: those are the machine's. Raising a recorded number takes `RECORD=1`, and a reason in the commit.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.compare import PRODUCTS
from benchmarks.ground import Ground, ground
from benchmarks.measure import measure_together, ratio, say
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import Server
from benchmarks.wire import wire_counts

RECORDED = Path(__file__).with_name("recorded.json")
MARGIN = 0.15

Costs = Mapping[str, Mapping[str, float]]
"""Of each scenario, by name."""


def check(record: bool) -> int:
    """The exit code: 1 where something costs more than it did."""
    recorded: Costs = {} if record else json.loads(RECORDED.read_text())
    costs: dict[str, dict[str, float]] = {}
    with ground(PRODUCTS) as here:
        wire = asyncio.run(wire_counts(here))
        floors, app = here.floors(), here.app()
        for scenario in SCENARIOS:
            key, floor = f"CPU × floor {scenario.against}", floors[scenario.against]
            figures = {**wire[scenario.name], key: _ratio(here, scenario, floor, app)}
            if recorded and verdicts({scenario.name: figures}, recorded):
                figures[key] = min(figures[key], _ratio(here, scenario, floor, app))  # noise seldom comes twice
            shown = ", ".join(f"{name} {value:g}" for name, value in figures.items() if value)
            say(f"{scenario.name:14} {shown}")
            costs[scenario.name] = figures
    if record:
        RECORDED.write_text(json.dumps(costs, indent=2, ensure_ascii=False) + "\n")
        return 0
    found = verdicts(costs, recorded)
    say("\n".join(found) or "Nothing costs more than it did.")
    return bool(found)


def verdicts(costs: Costs, recorded: Costs) -> list[str]:
    """A sentence for each cost that is above its margin, or that nobody has recorded."""
    found = []
    for name, figures in costs.items():
        for key, value in figures.items():
            limit = recorded.get(name, {}).get(key)
            if limit is None:
                found.append(f"{name}: {key} is {value:g}, and nothing is recorded: run `make bench-check RECORD=1`.")
            elif value > limit * (1 + MARGIN):
                found.append(f"{name}: {key} is {value:g}, was {limit:g}: mend it, or record it and say why.")
    return found


def _ratio(here: Ground, scenario: Scenario, floor: Server, app: Server) -> float:
    results = measure_together(here, scenario, [floor, app], rounds=2, seconds=2)
    return round(ratio(results[app.name], results[floor.name]), 2)
