"""The regression check fails for what became dearer, and only for that."""

import json

import pytest

from benchmarks.check import MARGIN, RECORDED, verdicts
from benchmarks.scenarios import SCENARIOS

COSTS = {"list": {"CPU × floor C": 1.2, "PostgreSQL round trips": 1.0, "Redis round trips": 0.0}}


def changed(key: str, value: float) -> dict[str, dict[str, float]]:
    return {"list": COSTS["list"] | {key: value}}


def test_the_same_again_passes() -> None:
    assert verdicts(COSTS, COSTS) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("CPU × floor C", 1.2 * (1 + MARGIN) + 0.01), ("PostgreSQL round trips", 2), ("Redis round trips", 1)],
)
def test_what_is_above_its_margin_fails(key: str, value: float) -> None:
    [sentence] = verdicts(changed(key, value), COSTS)
    assert sentence.startswith(f"list: {key} is {value:g}, was ")


@pytest.mark.parametrize(("key", "value"), [("CPU × floor C", 1.2 * (1 + MARGIN) - 0.01), ("CPU × floor C", 0.5)])
def test_what_is_within_it_or_cheaper_passes(key: str, value: float) -> None:
    assert verdicts(changed(key, value), COSTS) == []


def test_what_nobody_recorded_fails() -> None:
    [sentence] = verdicts(changed("bytes", 1), COSTS)
    assert "nothing is recorded" in sentence


def test_every_scenario_is_recorded() -> None:
    assert json.loads(RECORDED.read_text()).keys() == {scenario.name for scenario in SCENARIOS}
