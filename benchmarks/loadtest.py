"""`make loadtest`: locust's users on the app as it ships."""

import subprocess

from benchmarks.compare import PRODUCTS
from benchmarks.ground import ground
from benchmarks.measure import say
from benchmarks.servers import ROOT
from tools.scratch import scratch_environment


def loadtest(users: int, seconds: int) -> int:
    """The exit code: 1 where a service objective is missed."""
    # Not in .venv: it brings gevent and a web framework of its own.
    programs = scratch_environment("locust", ["--require-hashes", "-r", str(ROOT / "requirements" / "bench.txt")])
    with ground(PRODUCTS) as here:
        app = here.app()
        before = app.cpu_seconds()
        argv = [str(programs / "locust"), "-f", str(ROOT / "benchmarks" / "locustfile.py"), "--headless"]
        argv += ["--only-summary", "-u", str(users), "-r", str(max(1, users // 5)), "-t", f"{seconds}s", "-H", app.url]
        code = subprocess.run(argv, check=False).returncode
        say(f"{users} users; the service used {(app.cpu_seconds() - before) / seconds:.0%} of one core.")
    return code
