"""What `make bench-observability` makes of its measurements."""

import pytest

from benchmarks.caching import BASELINE, HIT
from benchmarks.observability import SCENARIOS, judged
from tests.benchmarks.test_figures import a_slice


@pytest.mark.parametrize(
    ("app_us", "missed"),
    [(70.0, False), (100.0, True)],
)
def test_what_is_added_is_compared_with_the_floor(app_us: float, missed: bool) -> None:
    results = {BASELINE: [a_slice(cpu_us=30.0)] * 3}
    for each in SCENARIOS:
        results |= {each.name: [a_slice(cpu_us=app_us)] * 3, f"{each.name}, silent": [a_slice(cpu_us=60.0)] * 3}
    rows, found = judged(results)
    assert found is missed
    assert [row[0] for row in rows] == [each.name for each in SCENARIOS]
    assert rows[0][1:6] == [
        "60",
        f"{app_us:.0f}",
        f"{app_us - 60:.0f}",
        f"{(app_us - 60) / 30:.2f}",
        f"{app_us / 30:.2f}",
    ]


def test_a_hit_has_a_target_of_its_own() -> None:
    results = {BASELINE: [a_slice(cpu_us=10.0)]}
    for each in SCENARIOS:
        cost = 39.0 if each.name == HIT.name else 30.0
        results |= {each.name: [a_slice(cpu_us=cost)], f"{each.name}, silent": [a_slice(cpu_us=cost)]}
    rows, missed = judged(results)
    assert missed
    assert "3.8" in rows[-1][-1]
