"""plinth's public names are a contract: none goes, and none takes less, before a version has deprecated it."""

import pytest
from typing_extensions import deprecated

from tests.plinth.public_names import RECORD, VERSION, Name, accepts, broken, current, described, recorded


def test_no_public_name_is_gone_or_takes_less_than_before() -> None:
    assert [*broken(recorded(), current(recorded()))] == [], "keep it, and mark it with typing_extensions.deprecated"


def test_every_public_name_is_recorded() -> None:
    lines = [str(each) for each in current(recorded()).values()]
    assert RECORD.read_text().splitlines() == lines, "record them: .venv/bin/python -m tests.plinth.public_names"


KEPT = [
    ("()", "()"),
    ("(a)", "(a)"),
    ("(a, b=...)", "(a)"),
    ("(a=..., b=...)", "(a)"),
    ("(a, *, b=...)", "(a)"),
    ("(a, *b, **c)", "(a, *b)"),
    ("(a, b)", "(a, *, b)"),
    ("(*, b=..., a)", "(*, a)"),
    ("async (a, b=...)", "async (a)"),
    ("(a)", "(a, /)"),
]
NARROWER = [
    ("()", "(a)"),
    ("(a, b)", "(a)"),
    ("(a, *, b)", "(a)"),
    ("(a)", "(a=...)"),
    ("(b)", "(a)"),
    ("(b, a)", "(a, b)"),
    ("(b=..., a=...)", "(a=..., b=...)"),
    ("(a, *, b=...)", "(a, b=...)"),
    ("(a, /)", "(a)"),
    ("(a)", "(a, *b)"),
    ("(a)", "(a, **b)"),
    ("(*, a)", "(*, a, b=...)"),
]


@pytest.mark.parametrize(("new", "old"), KEPT)
def test_parameters_that_take_as_much_are_accepted(new: str, old: str) -> None:
    assert accepts(new, old)


@pytest.mark.parametrize(("new", "old"), NARROWER)
def test_parameters_that_take_less_are_not(new: str, old: str) -> None:
    assert not accepts(new, old)


def change(old: str, new: str | None, deprecated_in: str = "") -> list[str]:
    after = {} if new is None else {"f": Name("f", new)}
    return [*broken({"f": Name("f", old, deprecated_in)}, after)]


def test_what_breaks_is_named() -> None:
    assert change("(a)", None) == ["f is gone."]
    assert change("(a)", "()") == ["f takes less than before: (); it was (a)."]
    assert change("(a)", "") == ["f is of another kind: not called; it was (a)."]
    assert change("async (a)", "(a)") == ["f is of another kind: (a); it was async (a)."]
    assert change("(a)", "(a, b=...)") == []


def test_what_an_earlier_version_deprecated_may_go() -> None:
    assert change("(a)", None, "0.0.1") == change("(a)", "()", "0.0.1") == []
    assert change("(a)", None, VERSION) == ["f is gone."]


def test_a_deprecated_name_is_recorded_with_the_version() -> None:
    @deprecated("Use g.")
    def f(a: int, *, b: str = "") -> None: ...

    [line] = described("plinth.f", f)
    assert str(line) == f"plinth.f (a, *, b=...)  # deprecated in {VERSION}"
