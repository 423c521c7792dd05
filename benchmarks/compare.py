"""Compares the floors, the app and the usual template, scenario by scenario."""

from collections.abc import Iterable, Sequence

from benchmarks.figures import scenario_table, table, target_rows, warnings
from benchmarks.load import DRIVER
from benchmarks.measure import CONNECTIONS, Results, Subject, measure, merge, show
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.testbed import Testbed, testbed

PRODUCTS = 10_000

Compared = tuple[Scenario, Results]


def quick(names: Iterable[str]) -> None:
    """Print the tables of all scenarios, or of those that are named, and the targets."""
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    with testbed(PRODUCTS) as bed:
        show(f"{CONNECTIONS} connections of {DRIVER}; ratios are of CPU per request.")
        show(f"\n{targets(compare(bed, chosen, launches=1, rounds=3, seconds=1))}")


def compare(
    bed: Testbed, scenarios: Iterable[Scenario], launches: int, rounds: int, seconds: int
) -> Sequence[Compared]:
    """Measure each scenario on its floors, the app and the usual template; prints the tables as they grow.

    Each launch has processes of its own, because the layout of a process in memory can favour it in all of its rounds.
    Writes get one round more, since they depend on the disk and vary more.
    """
    compared: list[Compared] = [(scenario, {}) for scenario in scenarios]
    for _ in range(launches):
        with bed.scope() as scope:
            servers = scope.floors() | {"app": scope.app(), "usual": scope.usual_template()}
            for scenario, results in compared:
                measured = [*scenario.floors, "app", *(["usual"] if scenario.in_usual else [])]
                subjects = [Subject(servers[each].name, servers[each], scenario) for each in measured]
                merge(results, measure(bed, subjects, rounds + 1 if scenario.writes else rounds, seconds))
                show(f"\n{section((scenario, results))}")
    return compared


def section(compared: Compared) -> str:
    scenario, results = compared
    return "\n\n".join([f"### {scenario.name.capitalize()}", scenario_table(results), *warnings(scenario, results)])


def targets(compared: Sequence[Compared]) -> str:
    rows = [row for scenario, results in compared for row in target_rows(scenario, results)]
    return table(["CPU per request", "target"], rows)
