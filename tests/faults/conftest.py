import os
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.counters import counters
from tests.faults.serving import serve
from tests.faults.tables import tables

__all__ = ["counters", "serve", "tables"]

# A project that has taken jobs out has no tables for them.
if not (Path(__file__).parents[2] / "app/jobs.py").exists():
    collect_ignore = ["test_jobs.py"]


def pytest_sessionfinish(exitstatus: int) -> None:
    """Only a run that passed is recorded, and only of all tests."""
    if os.environ.get("RECORD") and exitstatus == pytest.ExitCode.OK and report.is_complete():
        report.write()
