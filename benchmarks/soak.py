"""`make bench-soak`: reads and writes for a given time, to find memory leaks."""

import os
import time
from collections.abc import Sequence
from random import Random
from statistics import median

from benchmarks.compare import PRODUCTS
from benchmarks.measure import measure_slice, show
from benchmarks.processes import memory_megabytes
from benchmarks.scenarios import BY_ID, LIST, SEARCH, UPDATE
from benchmarks.testbed import Testbed, testbed

SLICE_SECONDS = 10
GROWTH = 1.05


def soak(minutes: float) -> int:
    """Returns the exit code: 1 if memory grows or a request failed."""
    with testbed(PRODUCTS) as bed:
        app = bed.app()
        lines = bed.directory / "soak.lines"
        lines.write_text("\n".join(_mixed(bed)) + "\n")
        samples, errors = list[float](), 0
        ends_at = time.monotonic() + minutes * 60
        while time.monotonic() < ends_at or not samples:
            taken = measure_slice(app, lines, SLICE_SECONDS)
            errors += taken.load.errors
            samples.append(memory_megabytes(app.workers[0])[1])
            seconds = len(samples) * SLICE_SECONDS
            show(f"{seconds:6} s  {taken.rate:8,.0f} requests/s  {samples[-1]:6.1f} MB  {errors} errors")
            os.truncate(app.process.log, 0)  # the log of an hour would fill the disk
    flat = is_flat(samples)
    show(
        f"Memory is {'flat' if flat else 'growing'}: {samples[0]:.1f} MB at the start, {samples[-1]:.1f} MB at the end."
    )
    return int(not flat or errors > 0)


def is_flat(samples: Sequence[float]) -> bool:
    """Whether memory in the last quarter is as in the second; the first is for warming up."""
    quarter = max(1, len(samples) // 4)
    return median(samples[-quarter:]) <= GROWTH * median(samples[quarter : 2 * quarter] or samples)


def _mixed(bed: Testbed) -> list[str]:
    random = Random(2026)
    shares = {BY_ID: 5000, SEARCH: 1000, LIST: 1000, UPDATE: 1000}
    lines = [line for each, count in shares.items() for line in each.lines(random, bed.products, count)]
    random.shuffle(lines)
    return lines
