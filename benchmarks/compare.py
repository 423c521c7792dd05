"""The floors and the app, scenario by scenario."""

from collections.abc import Iterable, Sequence

from benchmarks.figures import scenario_table, warnings
from benchmarks.ground import Ground, ground
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, measure, pool, say
from benchmarks.scenarios import SCENARIOS, Scenario

PRODUCTS = 10_000

Compared = tuple[Scenario, Results]


def quick(names: Iterable[str]) -> None:
    """Print all scenarios, or those that are named, in under two minutes."""
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    with ground(PRODUCTS) as here:
        say(f"{CONNECTIONS} connections of {DRIVER}; ratios are of CPU per request.")
        compare(here, chosen, launches=1, rounds=4, seconds=1)


def compare(
    here: Ground, scenarios: Iterable[Scenario], launches: int, rounds: int, seconds: int
) -> Sequence[Compared]:
    """The floors that each scenario is for, and the app, in so many rounds for each launch; shown as they grow.

    Each launch has processes of its own, and meets the machine at another time: one of them may be lucky in both for
    all of its rounds. Writes have twice the rounds, since each differs more from the next: the disk takes part.
    """
    compared: list[Compared] = [(scenario, {}) for scenario in scenarios]
    for _ in range(launches):
        with here.anew() as fresh:
            servers = fresh.floors() | {"app": fresh.app()}
            for scenario, results in compared:
                asked = [servers[name] for name in (*scenario.floors, "app")]
                pool(results, measure(here, scenario, asked, rounds * (2 if scenario.writes else 1), seconds))
                say(f"\n{section((scenario, results))}")
    return compared


def section(compared: Compared) -> str:
    scenario, results = compared
    return "\n\n".join([f"### {scenario.name.capitalize()}", scenario_table(results), *warnings(scenario, results)])
