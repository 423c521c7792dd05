"""What `app remove <name>` can take out of a project. What else it could do without gets a module and a line here."""

from pathlib import Path

from tools.removals.example import EXAMPLE
from tools.removals.jobs import JOBS
from tools.removals.removal import Removal, joined
from tools.removals.reports import REPORTS

__all__ = ["REMOVALS", "Removal", "removal_from"]

REMOVALS: dict[str, Removal] = {"example": EXAMPLE, "jobs": JOBS}


def removal_from(project: Path, name: str) -> Removal:
    """What that name takes out of this project: the reports too, as long as they are there."""
    has_reports = (project / REPORTS.paths[0]).exists()
    return joined(REPORTS, REMOVALS[name]) if has_reports else REMOVALS[name]
