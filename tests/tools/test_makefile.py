"""`make` without a target, and `make clean`."""

import re
import shutil
import sys
from itertools import combinations
from pathlib import Path

import pytest

from tests.tools.support import NO_SERVERS, READY, ROOT, outcome, plain_environment, supervised

MAKEFILE = (ROOT / "Makefile").read_text() + (ROOT / ".ci/targets.mk").read_text()
TARGETS = re.findall(r"^([a-z][a-z-]*):.*##", MAKEFILE, re.MULTILINE)


def test_make_lists_every_target_on_a_line_of_its_own() -> None:
    code, printed, error = outcome(["make"], ROOT, plain_environment())
    assert (code, error) == (0, "")
    listed = [line.split()[:2] for line in printed.splitlines()]
    assert listed == [["make", target] for target in TARGETS]
    assert all(len(line) <= 120 for line in printed.splitlines())


def test_every_target_is_phony() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(" ".join(phony).split()) == sorted({*TARGETS})


CHECKS = ("ruff check .", "ruff format --check .", "mypy", "lint-imports", "python -m tools.check_migrations")


@pytest.mark.parametrize("failing", [each for n in range(6) for each in combinations(CHECKS, n)], ids=", ".join)
def test_check_runs_every_tool_and_names_those_that_failed(tmp_path: Path, failing: tuple[str, ...]) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("tools", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tools/bootstrap.sh").touch()
    for name in ("ruff", "mypy", "lint-imports", "python"):
        program = tmp_path / ".venv/bin" / name
        failures = [f'[ "$command" = "{each}" ] && exit 1' for each in failing]
        lines = ["#!/bin/sh", f'command=$(echo {name} "$@")', 'echo "$command" >>ran', *failures, "exit 0", ""]
        program.write_text("\n".join(lines))
        program.chmod(0o755)
    code, _, error = outcome(["make", "check"], tmp_path, plain_environment())
    assert (tmp_path / "ran").read_text().splitlines() == [*CHECKS]
    assert code == (2 if failing else 0)
    assert [line.strip() for line in error.splitlines() if line.startswith("  ")] == [*failing]


@pytest.fixture
def used_checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("tools", "plinth/testing"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (".venv/bin", ".data/postgres", ".pytest_cache", "plinth/http/__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".env").touch()
    return tmp_path


def clean(checkout: Path) -> tuple[int, str, str]:
    return outcome(["make", "clean", f"PYTHON={sys.executable}"], checkout, plain_environment(PYTHONPATH=""))


def test_clean_removes_what_make_created_and_nothing_else(used_checkout: Path) -> None:
    assert clean(used_checkout) == (0, "", "")
    left = {path.relative_to(used_checkout).as_posix() for path in used_checkout.rglob("*") if path.is_dir()}
    assert left == {"plinth", "plinth/http", "plinth/testing", "tools", "tools/removals", "tools/resource"}
    assert (used_checkout / ".env").exists()
    assert clean(used_checkout)[0] == 0


def test_clean_is_refused_during_a_run(used_checkout: Path) -> None:
    (used_checkout / ".data" / "postgres").rmdir()
    with supervised(used_checkout, **NO_SERVERS) as terminal:
        terminal.read_until(READY)
        code, _, error = clean(used_checkout)
        assert code == 2
        assert error.startswith("A run in this checkout is using ")
        assert (used_checkout / ".venv").exists()
