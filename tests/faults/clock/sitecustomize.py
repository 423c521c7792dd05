"""Makes `time.time` a clock that jumps, in every process that has this folder on PYTHONPATH: Python imports this first.

The file at CLOCK_SHIFT holds the seconds by which it is wrong. It is mapped into memory, since each request reads the
clock several times. As on a machine whose wall clock is set, `time.monotonic` goes on as before.
"""

import os
import time
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path


def shifted(true_time: Callable[[], float], file: Path) -> Callable[[], float]:
    with file.open("rb") as opened:
        shift = memoryview(mmap(opened.fileno(), 0, access=ACCESS_READ)).cast("q")
    return lambda: true_time() + shift[0]


if path := os.environ.get("CLOCK_SHIFT"):
    setattr(time, "time", shifted(time.time, Path(path)))  # noqa: B010 - mypy knows it as a function
