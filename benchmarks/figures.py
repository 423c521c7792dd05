"""Markdown tables of measurements, warnings and verdicts."""

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.load import DRIVER
from benchmarks.measure import Results, Slice, median_of, ratio
from benchmarks.scenarios import Scenario
from benchmarks.testbed import USUAL

HEAD = ("", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "min–max", "× A", "× B", "× C", "× app")
WAITED = 0.1
BUSY = 0.05


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it is readable in a terminal; all columns but the first hold numbers."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *rest))} |"

    return "\n".join(map(line, (head, ruler, *rows)))


def scenario_table(results: Results) -> str:
    denominators = {name: results.get(name) for name in ("floor A", "floor B", "floor C", "app")}
    return table(HEAD, [_row(name, slices, denominators) for name, slices in results.items()])


def _row(name: str, slices: Sequence[Slice], denominators: Mapping[str, Sequence[Slice] | None]) -> list[str]:
    costs = [each.cpu_us for each in slices]
    return [
        name,
        f"{median_of(slices, lambda each: each.rate):,.0f}{'*' if _waited(slices) else ''}",
        f"{median_of(slices, lambda each: each.load.p50_ms):.2f}",
        f"{median_of(slices, lambda each: each.load.p99_ms):.2f}",
        f"{median_of(slices, lambda each: each.cpu_us):,.0f}",
        f"{min(costs):,.0f}–{max(costs):,.0f}",
        *(f"{ratio(slices, each):.2f}" if each else "" for each in denominators.values()),
    ]


def warnings(scenario: Scenario, results: Results) -> list[str]:
    """Sentences about what makes the figures of a table wrong or limits their meaning."""
    found = [
        f"{scenario.name}, {name}: {errors} requests failed, so its figures mean nothing."
        for name, slices in results.items()
        if (errors := sum(each.load.errors for each in slices))
    ]
    if waited := [name for name, slices in results.items() if _waited(slices)]:
        busy = max(median_of(results[name], lambda each: each.load.driver_busy) for name in waited)
        found.append(
            f"\\* {', '.join(waited)}: the server waited for {DRIVER} (busy {busy:.0%} of the time) and PostgreSQL, "
            "which share the other cores and limit the rate; CPU per request is not affected."
        )
    foreign = median(each.foreign for slices in results.values() for each in slices)
    if foreign > BUSY:
        found.append(
            f"The machine was busy: other processes used {foreign:.0%} of the server's core. Only the ratios hold."
        )
    return found


def _waited(slices: Sequence[Slice]) -> bool:
    return median_of(slices, lambda each: each.idle) > WAITED


def target_rows(scenario: Scenario, results: Results) -> list[list[str]]:
    """Of each target of a scenario, what it is and the verdict."""
    rows, app = [], results["app"]
    if scenario.limit:
        aim = f" (stretch {scenario.stretch:g})" if scenario.stretch else ""
        reached = at_most(ratio(app, results[f"floor {scenario.against}"]), scenario.limit)
        rows.append([f"{scenario.name}, app ÷ floor {scenario.against}", f"{reached}{aim}"])
    if scenario.ahead:
        rows.append([f"{scenario.name}, {USUAL} ÷ app", at_least(ratio(results[USUAL], app), scenario.ahead)])
    return rows


def at_most(value: float, limit: float) -> str:
    """A value beside its upper limit; bold if it is missed."""
    shown = _number(value)
    return f"{shown} ≤ {limit:g}" if value <= limit else f"**{shown} > {limit:g}**"


def at_least(value: float, limit: float) -> str:
    """A value beside its lower limit; bold if it is missed."""
    shown = _number(value)
    return f"{shown} ≥ {limit:g}" if value >= limit else f"**{shown} < {limit:g}**"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"
