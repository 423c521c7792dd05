from tests.faults.counters import counters
from tests.faults.serving import serve

__all__ = ["counters", "serve"]
