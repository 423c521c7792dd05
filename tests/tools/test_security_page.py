"""docs/security.md names tests that exist, and every requirement of ASVS 5.0.0's level 1."""

import ast
import re

import pytest

from tests.tools.support import ROOT

PAGE = (ROOT / "docs/security.md").read_text()
# The numbers of ASVS 5.0.0 by level, as its table has them.
LEVEL_1 = re.findall(
    r"\S+",
    """
    1.2.1 1.2.2 1.2.3 1.2.4 1.2.5 1.3.1 1.3.2 1.5.1 2.1.1 2.2.1 2.2.2 2.3.1 3.2.1 3.2.2 3.3.1 3.4.1 3.4.2 3.5.1 3.5.2
    3.5.3 4.1.1 4.4.1 5.2.1 5.2.2 5.3.1 5.3.2 6.1.1 6.2.1 6.2.2 6.2.3 6.2.4 6.2.5 6.2.6 6.2.7 6.2.8 6.3.1 6.3.2 6.4.1
    6.4.2 7.2.1 7.2.2 7.2.3 7.2.4 7.4.1 7.4.2 8.1.1 8.2.1 8.2.2 8.3.1 9.1.1 9.1.2 9.1.3 9.2.1 10.4.1 10.4.2 10.4.3
    10.4.4 10.4.5 11.3.1 11.3.2 11.4.1 12.1.1 12.2.1 12.2.2 13.4.1 14.2.1 14.3.1 15.1.1 15.2.1 15.3.1
""",
)
LEVEL_2 = re.findall(
    r"\S+",
    """
    1.1.1 1.1.2 1.2.6 1.2.7 1.2.8 1.2.9 1.3.3 1.3.4 1.3.5 1.3.6 1.3.7 1.3.8 1.3.9 1.3.10 1.3.11 1.4.1 1.4.2 1.4.3 1.5.2
    2.1.2 2.1.3 2.2.3 2.3.2 2.3.3 2.3.4 2.4.1 3.3.2 3.3.3 3.3.4 3.4.3 3.4.4 3.4.5 3.4.6 3.5.4 3.5.5 3.7.1 3.7.2 4.1.2
    4.1.3 4.2.1 4.3.1 4.3.2 4.4.2 4.4.3 4.4.4 5.1.1 5.2.3 5.4.1 5.4.2 5.4.3 6.1.2 6.1.3 6.2.9 6.2.10 6.2.11 6.2.12
    6.3.3 6.3.4 6.4.3 6.4.4 6.5.1 6.5.2 6.5.3 6.5.4 6.5.5 6.6.1 6.6.2 6.6.3 6.8.1 6.8.2 6.8.3 6.8.4 7.1.1 7.1.2 7.1.3
    7.3.1 7.3.2 7.4.3 7.4.4 7.4.5 7.5.1 7.5.2 7.6.1 7.6.2 8.1.2 8.2.3 8.4.1 9.2.2 9.2.3 9.2.4 10.1.1 10.1.2 10.2.1
    10.2.2 10.3.1 10.3.2 10.3.3 10.3.4 10.4.6 10.4.7 10.4.8 10.4.9 10.4.10 10.4.11 10.5.1 10.5.2 10.5.3 10.5.4 10.5.5
    10.6.1 10.6.2 10.7.1 10.7.2 10.7.3 11.1.1 11.1.2 11.2.1 11.2.2 11.2.3 11.3.3 11.4.2 11.4.3 11.4.4 11.5.1 11.6.1
    12.1.2 12.1.3 12.3.1 12.3.2 12.3.3 12.3.4 13.1.1 13.2.1 13.2.2 13.2.3 13.2.4 13.2.5 13.3.1 13.3.2 13.4.2 13.4.3
    13.4.4 13.4.5 14.1.1 14.1.2 14.2.2 14.2.3 14.2.4 14.3.2 14.3.3 15.1.2 15.1.3 15.2.2 15.2.3 15.3.2 15.3.3 15.3.4
    15.3.5 15.3.6 15.3.7 16.1.1 16.2.1 16.2.2 16.2.3 16.2.4 16.2.5 16.3.1 16.3.2 16.3.3 16.3.4 16.4.1 16.4.2 16.4.3
    16.5.1 16.5.2 16.5.3 17.1.1 17.2.1 17.2.2 17.2.3 17.2.4 17.3.1 17.3.2
""",
)
RISKS = [f"API{number}" for number in range(1, 11)]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
WITHOUT_A_TEST = ("**Documented**", "**Not applicable**", "**The operator's**", "**Not met**")


def items(heading: str) -> list[tuple[list[str], str]]:
    """The numbers and the text of each item below a heading."""
    [section] = re.findall(rf"(?ms)^## {heading}$(.*?)(?=^## |\Z)", PAGE)
    listed = re.findall(r"(?ms)^- (.*?)(?=^- |^#|\n\n|\Z)", section)
    return [(re.findall(r"\*\*(?:v5\.0\.0-)?(\d[\d.]*|API\d+)\*\*", item), item) for item in listed]


def numbers(heading: str) -> list[str]:
    return [number for found, _ in items(heading) for number in found]


def names_in(file: str) -> set[str]:
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_lists_are_those_of_the_standard() -> None:
    assert (len(LEVEL_1), len(LEVEL_2)) == (70, 183)
    assert not {*LEVEL_1} & {*LEVEL_2}


def test_every_risk_of_apis_and_every_requirement_of_level_1_is_there_once() -> None:
    assert numbers("OWASP API Security Top 10, 2023") == RISKS
    assert sorted(numbers("ASVS 5.0, level 1")) == sorted(LEVEL_1)


def test_what_is_shown_of_level_2_is_of_level_2() -> None:
    shown, left_out = numbers("ASVS 5.0, what is shown of level 2"), "What is left out"
    assert len({*shown}) == len(shown) > 20
    [section] = re.findall(rf"(?ms)^## {left_out}$(.*?)(?=^## )", PAGE)
    named = re.findall(r"\d+\.\d+\.\d+(?!-)", section.replace("v5.0.0-", ""))
    assert {*shown, *named} <= {*LEVEL_2}
    assert not {*shown} & {*named}


@pytest.mark.parametrize("file", sorted({file for file, _ in TEST.findall(PAGE)}))
def test_each_test_that_is_named_exists(file: str) -> None:
    assert {name for each, name in TEST.findall(PAGE) if each == file} <= names_in(file)


def test_each_item_names_a_test_or_says_why_there_is_none() -> None:
    sections = re.findall(r"(?m)^## ((?:OWASP|ASVS).*)$", PAGE)
    assert len(sections) == 3
    for found, item in (each for section in sections for each in items(section)):
        assert found, item
        assert TEST.search(item) or any(reason in item for reason in WITHOUT_A_TEST), item
        written = re.findall(r"`(tests/[^`]*)`", item)
        assert written == ["::".join(pair) for pair in TEST.findall(item)], item
