"""What `app remove <name>` can take out of a project. What else it could do without gets a module and a line here."""

from pathlib import Path

from tools.removals.accounts import ACCOUNTS
from tools.removals.example import EXAMPLE
from tools.removals.example_accounts import EXAMPLE_ACCOUNTS
from tools.removals.imports import IMPORT_JOBS
from tools.removals.jobs import JOBS
from tools.removals.orders import ORDERS
from tools.removals.removal import Removal, joined
from tools.removals.reports import REPORTS

__all__ = ["REMOVALS", "Removal", "removal_from"]

REMOVALS: dict[str, Removal] = {"example": EXAMPLE, "accounts": ACCOUNTS, "jobs": JOBS}
# What two of them have in common goes with that which is taken out first.
SHARED = {
    "example": [REPORTS, IMPORT_JOBS, ORDERS, EXAMPLE_ACCOUNTS],
    "accounts": [ORDERS, EXAMPLE_ACCOUNTS],
    "jobs": [REPORTS, IMPORT_JOBS],
}


def removal_from(project: Path, name: str) -> Removal:
    """What that name takes out of this project: what it shares with another one too, as long as that is there."""
    removal = REMOVALS[name]
    for shared in SHARED[name]:
        if (project / shared.paths[0]).exists():
            removal = joined(shared, removal)
    return removal
