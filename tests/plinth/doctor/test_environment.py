"""The Python that runs, and its packages."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from plinth.doctor.environment import environment_stamp, packages, python
from tests.plinth.doctor.support import the_one


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/development.txt").write_text("demo==1\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11"\n')
    return tmp_path


@pytest.mark.parametrize(("wanted", "level"), [(">=3.11", "ok"), (">=3.99", "error"), (">=4.0", "error")])
def test_a_python_that_is_too_old_is_found(project: Path, wanted: str, level: str) -> None:
    (project / "pyproject.toml").write_text(f'[project]\nrequires-python = "{wanted}"\n')
    finding = the_one(python(project))
    assert (finding.level, wanted in finding.sentence) == (level, True)
    assert ("make environment" in (finding.mend or "")) == (level == "error")


def test_a_python_of_another_environment_is_found(project: Path) -> None:
    (project / ".venv").mkdir()
    finding = the_one(python(project))
    assert (finding.level, finding.mend) == ("warning", ".venv/bin/app doctor")
    (project / ".venv").rmdir()
    (project / ".venv").symlink_to(sys.prefix)
    assert the_one(python(project)).level == "ok"


@pytest.mark.parametrize("change", ["requirements/development.txt", "pyproject.toml", ".venv/made-from", None])
def test_an_environment_that_is_out_of_date_is_found(project: Path, change: str | None) -> None:
    (project / ".venv").mkdir()
    (project / ".venv/made-from").write_text(environment_stamp(project))
    assert the_one(packages(project)).level == "ok"
    if change is None:
        (project / ".venv/made-from").unlink()
    else:
        with (project / change).open("a") as file:
            file.write("\n# changed\n")
    finding = the_one(packages(project))
    assert (finding.level, finding.mend) == ("error", "make environment")


def test_packages_outside_of_an_environment_are_compared_with_the_lock_file(project: Path) -> None:
    installed = version("pytest")
    locked = [f"pytest=={installed} \\", "    --hash=sha256:1", "elsewhere==1 ; sys_platform == 'win32' \\"]
    lock = project / "requirements/runtime.txt"
    lock.write_text("\n".join(locked))
    assert the_one(packages(project)).level == "ok"
    lock.write_text("\n".join([*locked, "typer==0.0.1 \\", "not-there==1"]))
    finding = the_one(packages(project))
    assert finding.level == "error"
    assert f"typer {version('typer')} in place of 0.0.1, not-there is missing" in finding.sentence
    lock.unlink()
    assert the_one(packages(project)).level == "ok"
