"""The cost of authentication: the same read for everyone, behind `HTTPBearer`, and for those who have signed in."""

from collections.abc import Sequence

from benchmarks.figures import at_most, table
from benchmarks.measure import Results, Subject, measure, median_of, merge, ratio
from benchmarks.scenarios import Scenario
from benchmarks.testbed import Testbed

TOKEN = "for-measuring-on-loopback-and-nothing-else"
WITHOUT = "without"
BEHIND = "behind HTTPBearer"
SIGNED_IN = "signed in"
LIMIT = 1.25
"""Target: at most this many times the CPU of the same endpoint without it."""


def scenarios(access_token: str) -> Sequence[Scenario]:
    """Only requests to the endpoints that want a token carry one: parsing the header is part of the cost."""
    return (
        _scenario(WITHOUT, "/benchmark/open", ""),
        _scenario(BEHIND, "/benchmark/secured", f"Authorization: Bearer {TOKEN}"),
        _scenario(SIGNED_IN, "/benchmark/signed-in", f"Authorization: {access_token}"),
    )


def _scenario(name: str, path: str, header: str) -> Scenario:
    return Scenario(
        name,
        lambda random, products, count: (
            f"GET {path}/{random.randint(1, products)} {header}".rstrip() for _ in range(count)
        ),
    )


def section(bed: Testbed, launches: int, rounds: int, seconds: int) -> str:
    results: Results = {}
    for _ in range(launches):
        with bed.scope() as scope:
            server = scope.secured_app()
            subjects = [Subject(each.name, server, each) for each in scenarios(bed.authorization)]
            merge(results, measure(scope, subjects, rounds, seconds))
    rows = []
    for name, slices in results.items():
        times = ratio(slices, results[WITHOUT])
        errors = sum(each.load.errors for each in slices)
        verdict = f"{errors} requests failed" if errors else at_most(times, LIMIT) if name != WITHOUT else ""
        rows.append([name, f"{median_of(slices, lambda each: each.cpu_us):,.0f}", f"{times:.2f}", verdict])
    return table(["product by id", "CPU µs/request", "× without", "target"], rows)
