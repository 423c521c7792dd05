"""`make bench-soak`: reads and writes for as long as you like; memory that grows all the time is a leak."""

import os
import time
from collections.abc import Sequence
from random import Random
from statistics import median

from benchmarks.compare import PRODUCTS
from benchmarks.ground import Ground, ground
from benchmarks.measure import say, take
from benchmarks.processes import memory_megabytes
from benchmarks.scenarios import BY_ID, LIST, SEARCH, UPDATE

SLICE_SECONDS = 10
GROWTH = 1.05


def soak(minutes: float) -> int:
    """The exit code: 1 where memory is not flat, or a request failed."""
    with ground(PRODUCTS) as here:
        app = here.app()
        lines = here.directory / "soak.lines"
        lines.write_text("\n".join(_mixed(here)) + "\n")
        samples, errors = list[float](), 0
        ends_at = time.monotonic() + minutes * 60
        while time.monotonic() < ends_at or not samples:
            taken = take(app, lines, SLICE_SECONDS)
            errors += taken.load.errors
            samples.append(memory_megabytes(app.workers[0])[1])
            seconds = len(samples) * SLICE_SECONDS
            say(f"{seconds:6} s  {taken.rate:8,.0f} requests/s  {samples[-1]:6.1f} MB  {errors} errors")
            os.truncate(app.process.log, 0)  # an hour of it would fill the disk
    flat = is_flat(samples)
    say(f"Memory is {'flat' if flat else 'growing'}: {samples[0]:.1f} MB at first, {samples[-1]:.1f} MB at last.")
    return int(not flat or errors > 0)


def is_flat(samples: Sequence[float]) -> bool:
    """Whether the last quarter holds what the second did; the first is for warming up."""
    quarter = max(1, len(samples) // 4)
    return median(samples[-quarter:]) <= GROWTH * median(samples[quarter : 2 * quarter] or samples)


def _mixed(here: Ground) -> list[str]:
    random = Random(2026)
    shares = {BY_ID: 5000, SEARCH: 1000, LIST: 1000, UPDATE: 1000}
    lines = [line for each, count in shares.items() for line in each.lines(random, here.products, count)]
    random.shuffle(lines)
    return lines
