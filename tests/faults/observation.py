"""What clients saw of a fault."""

from collections import Counter
from dataclasses import dataclass
from statistics import quantiles

from tests.faults.traffic import LOST, Answer


@dataclass
class Observation:
    before: list[Answer]
    during: list[Answer]
    after: list[Answer]
    """From `RECOVERY_SECONDS` after the end of the fault on."""
    recovering: list[Answer]
    """Until then."""
    began: float
    ended: float
    driver_share: float
    """The part of a core that the driver took."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def figures_of(found: Observation) -> dict[str, str]:
    during = found.during
    refused = [answer for answer in during if answer.status in {503, 504}]
    bad = [answer.due - found.ended for answer in found.recovering if not answer.is_good]
    caches = Counter(answer.cache for answer in during if answer.kind in {"cached", "expiring"})
    return {
        "requests": str(len(during)),
        "answered": str(sum(answer.is_good for answer in during)),
        "refused": str(len(refused)),
        "unknown": str(sum(answer.is_unknown for answer in during)),
        "lost": str(sum(answer.status == LOST for answer in during)),
        "503 p50": milliseconds([answer.seconds for answer in refused], 50),
        "503 p99": milliseconds([answer.seconds for answer in refused], 99),
        "longest": f"{1000 * max((answer.seconds for answer in during), default=0):.0f} ms",
        "longest since due": f"{1000 * max((answer.done - answer.due for answer in during), default=0):.0f} ms",
        "cached p50": milliseconds([answer.seconds for answer in during if answer.kind == "cached"], 50),
        "cache": ", ".join(f"{count} {name or '-'}" for name, count in caches.items()),
        "last error after": f"{max(bad, default=0):.1f} s",
        "driver": f"{found.driver_share:.0%} of a core",
    }


def milliseconds(values: list[float], percent: int) -> str:
    return f"{1000 * quantiles(values, n=100)[percent - 1]:.0f} ms" if len(values) > 1 else "–"
