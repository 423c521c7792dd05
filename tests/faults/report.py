"""Writes docs/reliability.md: the promises, and the figures of the last run of `make test-faults RECORD=1`."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from plinth.testing.environment import ROOT

PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- figures of the last run -->\n", "<!-- end of the figures -->\n"


@dataclass(frozen=True)
class Record:
    group: str
    name: str
    promise: str
    figures: Mapping[str, str]


records: list[Record] = []


def record(group: str, name: str, promise: str, figures: Mapping[str, str]) -> None:
    """Keep what was found, for the page."""
    records.append(Record(group, name, promise, figures))


def write(page: Path = PAGE) -> None:
    """Replace the figures in the page by those of this run."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    page.write_text(before + begin + tables() + end + after)


def tables() -> str:
    host = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    parts = [f"Recorded on {date.today():%-d %B %Y}: {host}.\n"]  # noqa: DTZ011 - the day is that of the reader of it
    for group in dict.fromkeys(each.group for each in records):
        parts.append(f"\n### {group}\n\n| fault | promise | figures |\n|---|---|---|\n")
        for each in records:
            if each.group == group:
                figures = "; ".join(f"{name} {value}" for name, value in each.figures.items())
                parts.append(f"| {each.name} | {each.promise} | {figures} |\n")
    return "".join(parts)


def is_complete() -> bool:
    """Whether the run had all parts of the page."""
    return {"PostgreSQL", "Redis", "Clients", "Processes", "Overload"} <= {each.group for each in records}
