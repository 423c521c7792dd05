"""Measures servers in turn, round after round, so that other load on the machine affects all of them alike."""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import TypeVar

from benchmarks.load import Load, load
from benchmarks.processes import busy_seconds
from benchmarks.scenarios import CREATED_PREFIX, Scenario
from benchmarks.servers import Server
from benchmarks.testbed import Testbed

RoundT = TypeVar("RoundT")

CONNECTIONS = 16
"""To each worker. With fewer, each wake-up of its event loop finds fewer requests and costs more per request."""
REMOVE_CREATED = (f"DELETE FROM products WHERE sku LIKE '{CREATED_PREFIX}%'", "VACUUM products")


@dataclass(frozen=True)
class Slice:
    """The measurement of one server under one load for a second or more."""

    load: Load
    cpu_seconds: float
    foreign: float
    """The share of the server's core that other processes used: above a few percent, the machine was busy."""

    @property
    def rate(self) -> float:
        return self.load.requests / self.load.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time per request, in microseconds."""
        return self.cpu_seconds / self.load.requests * 1e6

    @property
    def idle(self) -> float:
        """The unused share of the server's core: the driver or PostgreSQL was the bottleneck, not the server."""
        return 1 - self.cpu_seconds / self.load.seconds - self.foreign


Results = dict[str, list[Slice]]
"""The slices of each subject, by its name, one for each round."""


@dataclass(frozen=True)
class Subject:
    """One row of a table: a server under a scenario."""

    name: str
    server: Server
    scenario: Scenario


def measure_slice(server: Server, lines: Path, seconds: int, connections: int = CONNECTIONS) -> Slice:
    """Send the requests of a file on that many connections to each worker of the server."""
    connections *= len(server.workers)
    cpu, busy = server.cpu_seconds(), busy_seconds(server.cores)
    done = load(server.url, lines, connections, seconds, server.authorization)
    cpu, busy = server.cpu_seconds() - cpu, busy_seconds(server.cores) - busy
    return Slice(done, cpu, max(0.0, busy - cpu) / done.seconds)


def measure_slices_at_once(
    servers: Sequence[Server], lines: Sequence[Path], seconds: int, connections: int = CONNECTIONS
) -> list[Slice]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda server, path: measure_slice(server, path, seconds, connections), servers, lines))


def measure(bed: Testbed, subjects: Sequence[Subject], rounds: int, seconds: int) -> Results:
    """Measure one after the other. The first round also prepares statements and warms up; the median ignores it."""
    random = Random(2026)
    results: Results = {subject.name: [] for subject in subjects}
    lines = {subject.name: write_lines(bed, subject.scenario, random, seconds, subject.name) for subject in subjects}
    for number in range(rounds):
        for subject in subjects if number % 2 else reversed(subjects):
            name, scenario = subject.name, subject.scenario
            results[name].append(measure_slice(subject.server, lines[name], seconds))
            if scenario.fresh:
                write_lines(bed, scenario, random, seconds, name)
            elif scenario.writes:
                bed.execute(*REMOVE_CREATED)
                # New lines in the same file: a request still in progress may create a product after the removal.
                write_lines(bed, scenario, random, seconds, name)
    return results


def measure_at_once(bed: Testbed, subjects: Sequence[Subject], rounds: int, seconds: int) -> Results:
    """Measure all at the same time on their one core.

    The rates mean nothing, but the ratios of CPU time hold on a busy machine, which disturbs all alike.
    """
    random = Random(2026)
    results: Results = {subject.name: [] for subject in subjects}
    for _ in range(rounds):
        lines = [write_lines(bed, subject.scenario, random, seconds, subject.name) for subject in subjects]
        slices = measure_slices_at_once([each.server for each in subjects], lines, seconds, CONNECTIONS // 2)
        for subject, each in zip(subjects, slices, strict=True):
            results[subject.name].append(each)
        if any(subject.scenario.writes for subject in subjects):
            bed.execute(*REMOVE_CREATED)
    return results


def write_lines(bed: Testbed, scenario: Scenario, random: Random, seconds: int, name: str = "") -> Path:
    """Write a file of so many requests that no server starts over and creates the same product twice.

    Reads are the same for every server, unless the scenario wants fresh ones; writes never repeat.
    """
    path = bed.directory / f"{scenario.name} {name}.lines"
    source = random if scenario.writes or scenario.fresh else Random(2026)
    path.write_text("\n".join(scenario.lines(source, bed.products, 10_000 * seconds)) + "\n")
    return path


def merge(results: dict[str, list[RoundT]], more: Mapping[str, list[RoundT]]) -> None:
    """Append the rounds of `more` to those of `results`."""
    for name, rounds in more.items():
        results.setdefault(name, []).extend(rounds)


def median_of(slices: Sequence[Slice], figure: Callable[[Slice], float]) -> float:
    return median(figure(each) for each in slices)


def ratio(numerator: Sequence[Slice], denominator: Sequence[Slice]) -> float:
    """Of CPU per request: the median of the ratios within each round."""
    return median(ours.cpu_us / its.cpu_us for ours, its in zip(numerator, denominator, strict=True))


def show(text: str) -> None:
    """Print at once, also to a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
