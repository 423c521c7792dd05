"""What a check reports, as text and as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Literal

Check = Literal[
    "python",
    "packages",
    "settings",
    "variables",
    "secrets",
    "ports",
    "disk",
    "storage",
    "redis",
    "database",
    "clock",
    "connections",
    "jobs",
    "migrations",
    "drift",
]
Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    check: Check
    level: Level
    sentence: str
    mend: str | None = None
    """The command that mends it, or one sentence about what does. None where nothing is wrong."""


def has_error(findings: Iterable[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """One line for each finding, its mend below it, or below the last of those that have the same; the numbers last."""
    lines = []
    for finding, following in zip_longest(findings, findings[1:]):
        lines.append(f"{finding.level:9}{finding.check:13}{finding.sentence}")
        if finding.mend and (following is None or following.mend != finding.mend):
            lines.append(f"{'':22}-> {finding.mend}")
    numbers = {level: sum(finding.level == level for finding in findings) for level in ("error", "warning")}
    counted = [f"{number} {level}{'s' * (number > 1)}" for level, number in numbers.items() if number]
    return "\n".join([*lines, "", f"{', '.join(counted) or 'Nothing is wrong'}."])


def as_json(findings: Iterable[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)


def one_line(error: BaseException) -> str:
    """The text of an error, or its type where it has none."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
