"""What is printed is stable, and the page lists what is checked."""

import json
import re
from typing import get_args

import pytest

from plinth.doctor.findings import Check, Finding, as_json, as_text, has_error
from plinth.testing.environment import ROOT

OK = Finding("clock", "ok", "The clocks agree.")
WARNING = Finding("jobs", "warning", "A job is dead.", "app jobs list --state dead")
ERROR = Finding("connections", "error", "There are too many.", "Lower “them”.")


def test_the_text_has_a_line_for_each_finding_and_one_for_its_mend() -> None:
    assert as_text([OK, WARNING, ERROR, ERROR]).splitlines() == [
        "ok       clock        The clocks agree.",
        "warning  jobs         A job is dead.",
        "                      -> app jobs list --state dead",
        *["error    connections  There are too many."] * 2,
        "                      -> Lower “them”.",
        "",
        "2 errors, 1 warning.",
    ]
    assert as_text([OK]).splitlines()[-1] == "Nothing is wrong."
    assert max(map(len, get_args(Check))) < 13


def test_the_json_is_a_list_of_objects_with_the_same_keys() -> None:
    assert json.loads(as_json([OK, ERROR])) == [
        {"check": "clock", "level": "ok", "sentence": "The clocks agree.", "mend": None},
        {"check": "connections", "level": "error", "sentence": "There are too many.", "mend": "Lower “them”."},
    ]


@pytest.mark.parametrize(("findings", "expected"), [([], False), ([OK, WARNING], False), ([ERROR, OK], True)])
def test_only_errors_count(findings: list[Finding], expected: bool) -> None:
    assert has_error(findings) is expected


def test_the_page_lists_the_checks() -> None:
    page = (ROOT / "docs/plinth/doctor.md").read_text()
    assert re.findall(r"(?m)^\| `(\w+)` \|", page) == [*get_args(Check)]
