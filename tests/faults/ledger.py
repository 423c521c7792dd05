"""What became of each write: what its client was told is compared with the database."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from tests.faults.traffic import LOST, NO_ANSWER, Answer

WRITES = {"write", "job"}


@dataclass
class Ledger:
    """The numbers of all writes so far, by what their clients know."""

    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    """There was no answer, or it said that the outcome is unknown, or it was an error that says nothing of it."""

    def add(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            if answer.kind in WRITES:
                self._class_of(answer).add(answer.number)

    def _class_of(self, answer: Answer) -> set[int]:
        if answer.status == 201:
            return self.acknowledged
        has_failed = answer.status in {NO_ANSWER, LOST, 500} or answer.is_unknown
        return self.unknown if has_failed else self.refused

    def faults(self, stored: Iterable[int]) -> dict[str, list[int]]:
        """What must not be: lost, stored although it was refused, or stored twice. `stored` are the rows."""
        counts = Counter(stored)
        found = {
            "lost": sorted(self.acknowledged - counts.keys()),
            "wrong": sorted(self.refused & counts.keys()),
            "doubled": sorted(number for number, count in counts.items() if count > 1),
        }
        return {name: numbers for name, numbers in found.items() if numbers}

    def __str__(self) -> str:
        return f"{len(self.acknowledged)} acknowledged, {len(self.refused)} refused, {len(self.unknown)} unknown"


def effect_faults(
    jobs: dict[int, UUID], effects: Iterable[tuple[int, UUID]], mails: Iterable[tuple[int, str]]
) -> dict[str, list[object]]:
    """What must not be of the jobs that were stored with writes, by number and by id of the job with the effect.

    Each has exactly one effect. Each write with a job has at least one mail, always with the same Message-ID.
    """
    counts, ids = Counter(effects), set(mails)
    of_number = Counter(number for number, _ in ids)
    found: dict[str, list[object]] = {
        "without effect": [each for each in jobs.items() if each not in counts],
        "with several effects": [each for each, count in counts.items() if count > 1],
        "with an effect and not stored": [each for each in counts if each not in jobs.items()],
        "without mail": [number for number in jobs if number not in of_number],
        "with several Message-IDs": [number for number, count in of_number.items() if count > 1],
        "with a mail and not stored": [number for number in of_number if number not in jobs],
    }
    return {name: found_there for name, found_there in found.items() if found_there}
