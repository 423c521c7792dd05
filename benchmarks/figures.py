"""Tables of what was measured."""

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.load import DRIVER
from benchmarks.measure import Results, Slice, middle, ratio
from benchmarks.scenarios import Scenario

HEAD = ("", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "min–max", "× A", "× B", "× C")
WAITED = 0.1
BUSY = 0.05


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, aligned so that it can be read in a terminal too; all but the first column are numbers."""
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
    floors = {letter: results.get(f"floor {letter}") for letter in "ABC"}
    return table(HEAD, [_row(name, slices, floors) for name, slices in results.items()])


def _row(name: str, slices: Sequence[Slice], floors: Mapping[str, Sequence[Slice] | None]) -> list[str]:
    costs = [each.cpu_us for each in slices]
    return [
        name,
        f"{middle(slices, lambda each: each.rate):,.0f}{'*' if _waited(slices) else ''}",
        f"{middle(slices, lambda each: each.load.p50_ms):.2f}",
        f"{middle(slices, lambda each: each.load.p99_ms):.2f}",
        f"{middle(slices, lambda each: each.cpu_us):,.0f}",
        f"{min(costs):,.0f}–{max(costs):,.0f}",
        *(f"{ratio(slices, floor):.2f}" if floor else "" for floor in floors.values()),
    ]


def warnings(scenario: Scenario, results: Results) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = [
        f"{scenario.name}, {name}: {errors} requests failed, so its figures mean nothing."
        for name, slices in results.items()
        if (errors := sum(each.load.errors for each in slices))
    ]
    if waited := [name for name, slices in results.items() if _waited(slices)]:
        busy = max(middle(results[name], lambda each: each.load.driver_busy) for name in waited)
        found.append(
            f"\\* {', '.join(waited)}: the server waited for {DRIVER} (busy {busy:.0%} of the time) and PostgreSQL, "
            "which share the other cores: requests/s are theirs, CPU per request is the server's."
        )
    foreign = median(each.foreign for slices in results.values() for each in slices)
    if foreign > BUSY:
        found.append(f"The machine was busy: others took {foreign:.0%} of the server's core. Believe the ratios alone.")
    return found


def _waited(slices: Sequence[Slice]) -> bool:
    return middle(slices, lambda each: each.idle) > WAITED


def verdict(value: float, limit: float) -> str:
    """A value beside its target."""
    shown = f"{value:.0f}" if value >= 10 else f"{value:.2f}"
    return f"{shown} ≤ {limit:g}" if value <= limit else f"**{shown} > {limit:g}**"
