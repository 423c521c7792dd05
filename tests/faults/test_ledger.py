"""The ledger finds what must not be. Without this, a suite that passes could be one that looks at nothing."""

from uuid import UUID, uuid4

import pytest

from tests.faults.ledger import Ledger, effect_faults
from tests.faults.traffic import LOST, NO_ANSWER, Answer

JOB = uuid4()


def answer(number: int, status: int, *, is_unknown: bool = False, kind: str = "write") -> Answer:
    return Answer(kind, number, 0.0, 0.0, 0.0, status, is_problem=status > 400, is_unknown=is_unknown)


ANSWERS = [
    answer(1, 201),
    answer(2, 503),
    answer(3, 503, is_unknown=True),
    answer(4, LOST),
    answer(5, NO_ANSWER),
    answer(6, 500),
    answer(7, 504, kind="job"),
    answer(8, 200, kind="read"),
]


@pytest.mark.parametrize(
    ("stored", "faults"),
    [
        ([1], {}),
        ([1, 3, 4, 5, 6], {}),
        ([], {"lost": [1]}),
        ([1, 1], {"doubled": [1]}),
        ([1, 4, 4], {"doubled": [4]}),
        ([1, 2, 7], {"wrong": [2, 7]}),
    ],
)
def test_each_write_is_stored_once_or_not_as_its_client_was_told(
    stored: list[int], faults: dict[str, list[int]]
) -> None:
    ledger = Ledger()
    ledger.add(ANSWERS)
    assert ledger.faults(stored) == faults
    assert str(ledger) == "1 acknowledged, 2 refused, 4 unknown"


@pytest.mark.parametrize(
    ("effects", "mails", "faults"),
    [
        ([(1, JOB)], [(1, "<a>")], set()),
        ([(1, JOB)], [(1, "<a>"), (1, "<a>")], set()),
        ([], [(1, "<a>")], {"without effect"}),
        ([(1, JOB), (1, JOB)], [(1, "<a>")], {"with several effects"}),
        ([(1, JOB), (2, JOB)], [(1, "<a>")], {"with an effect and not stored"}),
        ([(1, JOB)], [], {"without mail"}),
        ([(1, JOB)], [(1, "<a>"), (1, "<b>")], {"with several Message-IDs"}),
        ([(1, JOB)], [(1, "<a>"), (2, "<b>")], {"with a mail and not stored"}),
    ],
)
def test_each_job_has_one_effect_and_a_mail(
    effects: list[tuple[int, UUID]], mails: list[tuple[int, str]], faults: set[str]
) -> None:
    assert effect_faults({1: JOB}, effects, mails).keys() == faults
