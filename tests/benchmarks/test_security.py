"""What `make bench-security` makes of its measurements."""

from collections.abc import Mapping, Sequence
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load import Load
from benchmarks.security import (
    INACTIVE,
    KNOWN,
    LIMIT,
    PLACES,
    UNKNOWN,
    Crowd,
    auc,
    crowd_faults,
    crowd_row,
    distinguishability,
    judged_times,
)

SAMPLES = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=40)  # few values, so that many are equal


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [
        ([1], [2], 1),
        ([2], [1], 0),
        ([1], [1], 0.5),
        ([1, 2, 3], [1, 2, 3], 0.5),
        ([1, 3], [2], 0.5),
        ([1, 2], [2, 3], 0.875),  # of four pairs three are larger, and one is equal
        # scipy.stats.mannwhitneyu of its documentation: U1 is 17 of 20 pairs.
        ([19, 22, 16, 29, 24], [20, 11, 17, 12], 0.15),
    ],
)
def test_auc_of_known_samples(some: Sequence[float], others: Sequence[float], expected: float) -> None:
    assert auc(some, others) == pytest.approx(expected)


@given(SAMPLES, SAMPLES)
def test_auc_is_the_share_of_pairs(some: list[float], others: list[float]) -> None:
    pairs = list(product(some, others))
    share = sum(1.0 if other > one else 0.5 if other == one else 0.0 for one, other in pairs) / len(pairs)
    assert auc(some, others) == pytest.approx(share)


@given(SAMPLES, SAMPLES)
def test_either_kind_may_be_the_slower_one(some: list[float], others: list[float]) -> None:
    measured = distinguishability(some, others)
    assert measured == pytest.approx(distinguishability(others, some))
    assert measured == pytest.approx(max(auc(some, others), auc(others, some)))
    assert 0.5 <= measured <= 1


def test_equal_times_pass_and_a_query_more_fails() -> None:
    random = Random(1)

    def times(more_seconds: float) -> list[float]:
        return [random.gauss(0.05, 0.002) + more_seconds for _ in range(1000)]

    rows, found = judged_times({KNOWN: times(0), INACTIVE: times(0.001), UNKNOWN: times(0)})
    assert [row[0] for row in rows] == [f"{kind}, 1,000 samples" for kind in (KNOWN, INACTIVE, UNKNOWN)]
    assert rows[0][-1].endswith(f"≤ {LIMIT}")
    assert rows[1][-1].endswith(f"> {LIMIT}**")
    assert rows[2][2:] == ["", ""]
    [sentence] = found
    assert sentence.startswith("The time of a login tells inactive emails from unknown ones: AUC 0.6")
    _, both = judged_times({KNOWN: times(0), INACTIVE: times(0), UNKNOWN: times(0.001)})
    assert len(both) == 2


def a_load(errors: int = 0) -> Load:
    return Load(requests=100, seconds=1, p50_ms=1.25, p99_ms=9, max_ms=12, errors=errors, driver_busy=0.5)


@pytest.mark.parametrize(
    ("clients", "statuses", "by_id_errors", "ping_errors", "expected"),
    [
        (0, {}, 0, 0, []),
        (PLACES, {200: 100}, 0, 0, []),
        (2 * PLACES, {200: 100, 503: 1}, 0, 0, []),
        (PLACES, {200: 100, 503: 1}, 0, 0, ["32 clients at once: 1 logins were refused, and there is room for 32."]),
        (2 * PLACES, {200: 100}, 0, 0, ["64 clients at once: 0 logins were refused, and there is room for 32."]),
        (
            PLACES,
            {200: 99, 429: 1},
            0,
            0,
            ["32 clients at once: logins were answered {429: 1}, which is neither 200 nor 503."],
        ),
        (PLACES, {200: 9}, 1, 0, ["32 clients at once: 1 of the other requests failed (by id)."]),
        (0, {}, 0, 2, ["0 clients at once: 2 of the other requests failed (ping)."]),
    ],
)
def test_what_must_not_happen_is_found(
    clients: int, statuses: Mapping[int, int], by_id_errors: int, ping_errors: int, expected: list[str]
) -> None:
    assert list(crowd_faults(Crowd(clients, statuses, a_load(by_id_errors), a_load(ping_errors)))) == expected


def test_a_row_shows_logins_and_the_times_of_other_requests() -> None:
    row = crowd_row(Crowd(64, {200: 1234, 503: 5}, a_load(), a_load(2)))
    assert row == ["64", "1234", "5", "2", "1.2", "9.0", "12.0", "1.2", "9.0", "12.0"]
