from pathlib import Path

from tests.faults.counters import counters
from tests.faults.serving import serve

__all__ = ["counters", "serve"]

# A project that has taken jobs out has no tables for them.
if not (Path(__file__).parents[2] / "app/jobs.py").exists():
    collect_ignore = ["test_jobs.py"]
