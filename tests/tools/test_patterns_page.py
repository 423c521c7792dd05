"""docs/patterns.md says of each pattern when, how, at what cost and until where, and its round trips are those counted.

That its paths, commands and settings exist is tested by test_readme.py, of this page as of every other.
"""

import re

import pytest

from tests.app.test_round_trips import ROUND_TRIPS
from tests.tools.support import ROOT

PAGE = (ROOT / "docs/patterns.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"(?m)^## ", PAGE)[1:]}
COST = re.compile(r"`([A-Z]+) (/api/[^`]+)`: (\d+) round trip")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_pattern_has_each_part(section: str) -> None:
    parts = re.findall(r"(?m)^\*\*(\w+)\.?\*\*", SECTIONS[section])
    assert parts == ["When", "How", "Cost", "Limits"]


def test_the_round_trips_are_those_that_are_counted() -> None:
    shown = {(method, path): int(count) for method, path, count in COST.findall(PAGE)}
    assert len(shown) > 8
    assert shown == {endpoint: ROUND_TRIPS[endpoint] for endpoint in shown}
