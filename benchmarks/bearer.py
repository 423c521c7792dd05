"""The cost of a security dependency: the same read with and without `HTTPBearer` and a check of the token."""

from benchmarks.figures import at_most, table
from benchmarks.measure import Results, Subject, measure, median_of, merge, ratio
from benchmarks.scenarios import Scenario
from benchmarks.testbed import Testbed

TOKEN = "for-measuring-on-loopback-and-nothing-else"
WITHOUT = "without"
BEHIND = "behind HTTPBearer"
LIMIT = 1.25
"""Target: at most this many times the CPU of the same endpoint without it."""


def _scenario(name: str, path: str, header: str) -> Scenario:
    return Scenario(
        name,
        lambda random, products, count: (
            f"GET {path}/{random.randint(1, products)} {header}".rstrip() for _ in range(count)
        ),
    )


# Only requests to the secured endpoint carry a token: parsing it is part of the cost.
SCENARIOS = (
    _scenario(WITHOUT, "/benchmark/open", ""),
    _scenario(BEHIND, "/benchmark/secured", f"Authorization: Bearer {TOKEN}"),
)


def section(bed: Testbed, launches: int, rounds: int, seconds: int) -> str:
    results: Results = {}
    for _ in range(launches):
        with bed.scope() as scope:
            server = scope.secured_app()
            subjects = [Subject(scenario.name, server, scenario) for scenario in SCENARIOS]
            merge(results, measure(scope, subjects, rounds, seconds))
    rows = []
    for name, slices in results.items():
        times = ratio(slices, results[WITHOUT])
        errors = sum(each.load.errors for each in slices)
        verdict = f"{errors} requests failed" if errors else at_most(times, LIMIT) if name == BEHIND else ""
        rows.append([name, f"{median_of(slices, lambda each: each.cpu_us):,.0f}", f"{times:.2f}", verdict])
    return table(["product by id", "CPU µs/request", "× without", "target"], rows)
