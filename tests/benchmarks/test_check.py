"""The regression check fails for what costs more than recorded, and for nothing else."""

import json
from statistics import median
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import testbed
from benchmarks.check import MARGIN, RECORDED, checks, each_figure, exceeding, verdicts

COSTS = {"list": {"CPU × floor C": 1.2, "PostgreSQL round trips": 1.0, "Redis round trips": 0.0}}


def changed(key: str, value: float) -> dict[str, dict[str, float]]:
    return {"list": COSTS["list"] | {key: value}}


def test_equal_costs_pass() -> None:
    assert verdicts(COSTS, COSTS) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("CPU × floor C", 1.2 * (1 + MARGIN) + 0.01), ("PostgreSQL round trips", 2), ("Redis round trips", 1)],
)
def test_a_cost_above_its_margin_fails(key: str, value: float) -> None:
    [sentence] = verdicts(changed(key, value), COSTS)
    assert sentence.startswith(f"list: {key} is {value:g}, recorded is ")


@pytest.mark.parametrize(("key", "value"), [("CPU × floor C", 1.2 * (1 + MARGIN) - 0.01), ("CPU × floor C", 0.5)])
def test_a_cost_within_its_margin_or_lower_passes(key: str, value: float) -> None:
    assert verdicts(changed(key, value), COSTS) == []


def test_a_cost_that_is_not_recorded_fails() -> None:
    [sentence] = verdicts(changed("bytes", 1), COSTS)
    assert "not recorded" in sentence


def test_only_what_exceeds_its_record_is_measured_again_and_its_lowest_value_counts() -> None:
    costs = {**COSTS, "ping": {"CPU × floor C": 2.0, "PostgreSQL round trips": 0.0}}
    recorded = {**COSTS, "ping": {"CPU × floor C": 1.5, "PostgreSQL round trips": 0.0}}
    assert exceeding(costs, recorded) == {"ping"}
    launches = {"ping": [costs["ping"], {"CPU × floor C": 1.6, "PostgreSQL round trips": 0.0}]}
    assert exceeding(each_figure(min, launches), recorded) == set()
    more = {"ping": [*launches["ping"], {"CPU × floor C": 1.9, "PostgreSQL round trips": 0.0}]}
    assert each_figure(median, more) == {"ping": {"CPU × floor C": 1.9, "PostgreSQL round trips": 0.0}}


def test_every_check_compares_two_servers_and_is_recorded() -> None:
    """Both servers of a pair are measured at the same time, so one process cannot be both."""
    bed = SimpleNamespace(
        floors=lambda: {"A": "floor A", "B": "floor B", "C": "floor C"},
        app=lambda name="app", **_: name,
        secured_app=lambda name: name,
        authorization="Bearer token",
        usual_template=lambda: "usual",
    )
    recorded = json.loads(RECORDED.read_text())
    found = list(checks(cast(testbed.Testbed, bed)))
    assert [each.name for each in found] == list(recorded)
    for each in found:
        assert each.key in recorded[each.name]
        assert each.subject.server != each.reference.server
        assert each.subject.name != each.reference.name
