"""The floors and the app, scenario by scenario."""

from collections.abc import Iterable, Iterator, Mapping

from benchmarks.figures import scenario_table, warnings
from benchmarks.ground import Ground, ground
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, measure, say
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import Server

PRODUCTS = 10_000

Compared = tuple[Scenario, Results]


def quick(names: Iterable[str]) -> None:
    """Print all scenarios, or those that are named, in under two minutes."""
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    with ground(PRODUCTS) as here:
        say(f"{CONNECTIONS} connections of {DRIVER}; ratios are of CPU per request.")
        for compared in compare(here, here.floors() | {"app": here.app()}, chosen, rounds=5, seconds=1):
            say(f"\n{section(compared)}")


def compare(
    here: Ground, servers: Mapping[str, Server], scenarios: Iterable[Scenario], rounds: int, seconds: int
) -> Iterator[Compared]:
    """Of the floors by their letters and the app, those that each scenario is for."""
    for scenario in scenarios:
        yield scenario, measure(here, scenario, [servers[name] for name in (*scenario.floors, "app")], rounds, seconds)


def section(compared: Compared) -> str:
    scenario, results = compared
    return "\n\n".join([f"### {scenario.name.capitalize()}", scenario_table(results), *warnings(scenario, results)])
