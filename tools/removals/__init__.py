"""What `app remove <name>` can take out of a project. What else it could do without gets a module and a line here."""

from tools.removals.example import EXAMPLE
from tools.removals.jobs import JOBS
from tools.removals.removal import Removal

__all__ = ["REMOVALS", "Removal"]

REMOVALS: dict[str, Removal] = {"example": EXAMPLE, "jobs": JOBS}
