"""Asks each server in turn, round after round, so that whatever else the machine does meets them all alike."""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import TypeVar

from benchmarks.ground import Ground
from benchmarks.load import Load, load
from benchmarks.processes import busy_seconds
from benchmarks.scenarios import MARK, Scenario
from benchmarks.servers import Server

RoundT = TypeVar("RoundT")

CONNECTIONS = 16
"""To each worker: with fewer, it finds fewer requests each time it looks, and pays for more looks."""
REMOVE_CREATED = (f"DELETE FROM products WHERE sku LIKE '{MARK}%'", "VACUUM products")


@dataclass(frozen=True)
class Slice:
    """One server under one load for a second or more."""

    load: Load
    cpu_seconds: float
    foreign: float
    """The share of the server's core that went to others: above a few percent, the machine was busy."""

    @property
    def rate(self) -> float:
        return self.load.requests / self.load.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.load.requests * 1e6

    @property
    def idle(self) -> float:
        """The share of the server's core that nobody used: the driver or PostgreSQL was the limit, not the server."""
        return 1 - self.cpu_seconds / self.load.seconds - self.foreign


Results = dict[str, list[Slice]]
"""The slices of each server, one a round."""


def take(server: Server, lines: Path, seconds: int, connections: int = CONNECTIONS) -> Slice:
    """What it answers through that many connections to each of its workers."""
    connections *= len(server.workers)
    cpu, busy = server.cpu_seconds(), busy_seconds(server.cores)
    done = load(server.url, lines, connections, seconds)
    cpu, busy = server.cpu_seconds() - cpu, busy_seconds(server.cores) - busy
    return Slice(done, cpu, max(0.0, busy - cpu) / done.seconds)


def take_together(
    servers: Sequence[Server], lines: Sequence[Path], seconds: int, connections: int = CONNECTIONS
) -> list[Slice]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda server, path: take(server, path, seconds, connections), servers, lines))


def measure(ground: Ground, scenario: Scenario, servers: Sequence[Server], rounds: int, seconds: int) -> Results:
    """The first round also prepares statements and warms up, which a median forgives."""
    random = Random(2026)
    lines = write_lines(ground, scenario, random, seconds)
    results: Results = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 else reversed(servers):
            results[server.name].append(take(server, lines, seconds))
            if scenario.writes:
                ground.ask(*REMOVE_CREATED)
                lines = write_lines(ground, scenario, random, seconds)  # a straggler may still create one of the last
    return results


def measure_together(
    ground: Ground, scenario: Scenario, servers: Sequence[Server], rounds: int, seconds: int
) -> Results:
    """All at once, on their one core: no rates, but ratios that hold on a busy machine, which disturbs all alike."""
    random = Random(2026)
    results: Results = {server.name: [] for server in servers}
    for _ in range(rounds):
        lines = [write_lines(ground, scenario, random, seconds, server.name) for server in servers]
        for server, each in zip(servers, take_together(servers, lines, seconds, CONNECTIONS // 2), strict=True):
            results[server.name].append(each)
        if scenario.writes:
            ground.ask(*REMOVE_CREATED)
    return results


def write_lines(ground: Ground, scenario: Scenario, random: Random, seconds: int, name: str = "all") -> Path:
    """Enough lines that no server comes round to one that creates the same again."""
    path = ground.directory / f"{scenario.name} of {name}.lines"
    path.write_text("\n".join(scenario.lines(random, ground.products, 10_000 * seconds)) + "\n")
    return path


def pool(results: dict[str, list[RoundT]], more: Mapping[str, list[RoundT]]) -> None:
    for name, rounds in more.items():
        results.setdefault(name, []).extend(rounds)


def middle(slices: Sequence[Slice], figure: Callable[[Slice], float]) -> float:
    return median(figure(each) for each in slices)


def ratio(ours: Sequence[Slice], floor: Sequence[Slice]) -> float:
    """Of CPU per request: the median over the rounds, each against the floor of its own round."""
    return median(our.cpu_us / its.cpu_us for our, its in zip(ours, floor, strict=True))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
