"""`make loadtest`: locust's simulated users on the app with its defaults, but for tokens that expire meanwhile."""

import subprocess

from benchmarks.compare import PRODUCTS
from benchmarks.measure import show
from benchmarks.servers import ROOT
from benchmarks.testbed import testbed
from tools.scratch import scratch_environment

SPAWNED = 4
"""In a second. The worker hashes two passwords for each, one after the other."""


def loadtest(users: int, seconds: int) -> int:
    """Returns the exit code: 1 if a service objective is missed."""
    # An environment of its own, because locust installs gevent and a web framework.
    programs = scratch_environment("locust", ["--require-hashes", "-r", str(ROOT / "requirements" / "bench.txt")])
    with testbed(PRODUCTS) as bed:
        app = bed.app(AUTH_ACCESS_SECONDS="30")
        before = app.cpu_seconds()
        argv = [str(programs / "locust"), "-f", str(ROOT / "benchmarks" / "locustfile.py"), "--headless"]
        argv += ["--only-summary", "-u", str(users), "-r", str(SPAWNED), "-t", f"{seconds}s", "-H", app.url]
        code = subprocess.run(argv, check=False).returncode
        show(f"{users} users; the service used {(app.cpu_seconds() - before) / seconds:.0%} of one core.")
    return code
