"""Sends requests as fast as a server answers them: with wrk if it is installed, else with the bundled client."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import AUTHORIZATION
from benchmarks.servers import ROOT
from plinth.testing.locks import SetupError

WRK = shutil.which("wrk")
DRIVER = "wrk" if WRK else "the bundled client"


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    driver_busy: float
    """CPU time of the driver divided by the elapsed time."""


def load(url: str, lines: Path, connections: int, seconds: int, authorization: str = "") -> Load:
    """Send the requests of a file in turn, over and over, on that many connections. Raises SetupError.

    `authorization` is a header of those that change something.
    """
    if WRK:
        script = str(ROOT / "benchmarks" / "wrk.lua")
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", f"--script={script}"]
        argv = [WRK, *options, url, "--", str(lines)]
    else:
        argv = [sys.executable, "-m", "benchmarks.client", url, str(lines), str(connections), str(seconds)]
    before = _cpu_of_children()
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), AUTHORIZATION: authorization},
    )
    if done.returncode:
        raise SetupError(f"{DRIVER} failed: {done.stderr or done.stdout}")
    figures = json.loads(done.stdout.splitlines()[-1])
    return Load(**figures, driver_busy=(_cpu_of_children() - before) / figures["seconds"])


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
