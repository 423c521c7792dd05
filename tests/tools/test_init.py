"""`make init`: a project of its own name, from a copy of this one."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from app.settings import AppSettings
from tests.tools.support import ROOT
from tools.init import LABELS, main, write_secrets
from tools.project import PLACES, TEMPLATE_PATHS, current, slug

NAME = ["--name=Quokka Desk"]
TEMPLATE = current(ROOT)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the files that git tracks or would add."""
    listed = subprocess.check_output(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    for name in listed.decode().splitlines():
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def files(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): path.read_text() for path in project.rglob("*") if path.is_file()}


def lines_with(project: Path, pattern: str) -> Iterator[str]:
    """The lines that match, but for those of plinth, its pages, the lock files and the tables' history."""
    not_the_service = ("plinth/", "docs/plinth/", "requirements/", "migrations/versions/")
    for name, text in files(project).items():
        if not name.startswith(not_the_service):
            yield from (f"{name}: {line}" for line in text.splitlines() if re.search(pattern, line))


def test_no_file_names_the_template_afterwards(project: Path) -> None:
    assert main(NAME, project) == 0
    # The library keeps its name: `plinth` alone, as a path or as a module, is the library, and so are its tables.
    tables = "audit|idempotency_keys|jobs|job_effects|schedules|login_attempts"
    service = rf"Plinth|plinth(?!_(?:{tables})\b)[-_@]\w|[-_@:=]plinth|//plinth|(owner|\d)/plinth"
    assert [*lines_with(project, service)] == []
    assert current(project).author == "Quokka Desk contributors"


def test_a_second_name_replaces_the_first_everywhere(project: Path) -> None:
    options = ["--description=It sends parcels.", "--author=Mary Somerville", "--image=example.com/shop/quokka"]
    assert main([*NAME, *options], project) == 0
    assert current(project).holder == "Mary Somerville"
    assert [*lines_with(project, "example.com/shop/quokka")]
    again = ["--name=Größe 2", "--description=It measures.", "--author=Grace Hopper", "--image=example.com/sizes"]
    assert main(again, project) == 0
    assert [*lines_with(project, "(?i)quokka|parcels|Somerville")] == []
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert (metadata["name"], metadata["description"]) == ("grosse-2", "It measures.")
    assert metadata["authors"] == [{"name": "Grace Hopper"}]
    assert "Copyright (c) 2026 Grace Hopper\n" in (project / "LICENSE").read_text()


def test_chosen_values_stay_and_derived_ones_follow_the_name(project: Path) -> None:
    assert main([*NAME, "--licence-holder=Example Ltd"], project) == 0
    assert main(["--name=Cash"], project) == 0
    found = current(project)
    assert (found.author, found.holder, found.image) == ("Cash contributors", "Example Ltd", "ghcr.io/owner/cash")


def test_going_back_to_the_old_name_restores_every_file(project: Path) -> None:
    before = files(project)
    assert main([*NAME, "--keep"], project) == 0
    assert main([f"--name={TEMPLATE.name}", "--keep"], project) == 0
    after = files(project)
    assert after.pop(".env")
    assert after == before


def test_the_templates_own_parts_are_removed_with_every_reference(project: Path) -> None:
    assert main([*NAME, "--keep"], project) == 0
    assert [path for path in TEMPLATE_PATHS if not (project / path).exists()] == []
    assert main(NAME, project) == 0
    assert [path for path in TEMPLATE_PATHS if (project / path).exists()] == []
    named = r"\bbenchmarks\b|tests[./](plinth|tools|benchmarks|containers|deploy)\b|\.ci/|(bench|containers)\.txt"
    assert {line.partition(":")[0] for line in lines_with(project, named)} <= {"tools/project.py", "tools/init.py"}
    assert {path.name for path in (project / "tests").iterdir()} == {"app", "conftest.py", "faults", "test_faults.py"}
    readme = (project / "README.md").read_text()
    assert readme.startswith("# Quokka Desk\n\nA production-ready FastAPI service.\n")
    assert [link for link in re.findall(r"\]\(([^)]*)\)", readme) if not (project / link).exists()] == []
    pages = [path.read_text() for path in (*project.glob("*.md"), *project.glob("d*/**/*.md"))]
    agents = (project / "AGENTS.md").read_text()
    paths = [
        *re.findall(r"\]\(([^)#]*)\)", agents),
        *re.findall(r"`(?:ls )?((?:app|plinth|tools|docs|tests)/[^`]*)`", agents),
    ]
    assert [path for path in paths if not any(project.glob(path))] == []
    for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", "\n".join(pages)):
        assert f"\n{target}:" in (project / "Makefile").read_text(), target


def test_a_missing_text_is_an_error_and_nothing_is_changed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in PLACES:
        file = project / place.file
        text = file.read_text()
        file.write_text(text.replace(TEMPLATE.fill(place.text), "something else\n"))
        before = files(project)
        assert main(NAME, project) == 1
        assert capsys.readouterr().err.startswith(f"{place.file} does not contain this once: ")
        assert files(project) == before
        file.write_text(text)


def test_secrets_are_fresh_and_never_overwritten(project: Path) -> None:
    assert main(NAME, project) == 0
    written = dotenv_values(project / ".env")
    assert (len(written["APP_SECRET_KEY"] or ""), len(written["POSTGRES_PASSWORD"] or "")) == (64, 48)
    assert (project / ".env").stat().st_mode & 0o777 == 0o600
    assert main(["--name=Cash"], project) == 0
    assert dotenv_values(project / ".env") == written
    (project / ".env").write_text("PORT=1\nexport APP_SECRET_KEY = mine\nPOSTGRES_PASSWORD=")
    assert write_secrets(project / ".env") == ["POSTGRES_PASSWORD"]
    changed = dotenv_values(project / ".env")
    assert (changed["PORT"], changed["APP_SECRET_KEY"]) == ("1", "mine")
    assert changed["POSTGRES_PASSWORD"] not in {"", None, written["POSTGRES_PASSWORD"]}


def test_on_a_terminal_it_prompts_for_what_is_not_given(project: Path) -> None:
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return "It sends parcels." if question.startswith("Description") else ""

    assert main([*NAME, "--author=Ada"], project, answer) == 0
    assert questions == [
        f"{LABELS['description']} [{TEMPLATE.description}]: ",
        f"{LABELS['holder']} [Ada]: ",
        f"{LABELS['image']} [ghcr.io/owner/quokka-desk]: ",
    ]
    found = current(project)
    assert (found.name, found.description, found.holder) == ("Quokka Desk", "It sends parcels.", "Ada")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Give the project a name: make init NAME="),
        (['--name=The "best"'], "The name 'The \"best\"' is empty, begins or ends with a space, or contains one of "),
        (["--name=two\nlines"], "The name 'two\\nlines' is empty, "),
        (["--name=東京"], "The name '東京' has no Latin letter or digit"),
        ([*NAME, "--image=Owner/Name"], "The image 'Owner/Name' is not a name without a tag"),
        ([*NAME, "--author= "], "The author ' ' is empty, "),
    ],
)
def test_unusable_values_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    before = files(project)
    assert main(options, project) == 1
    assert capsys.readouterr().err.startswith(sentence)
    assert files(project) == before


def test_make_passes_on_its_variables_but_none_of_the_environment(project: Path) -> None:
    def make(*variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", "init", *variables],
            cwd=project,
            env=os.environ | {"NAME": "a-host", "AUTHOR": "a-login"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    refused = make()
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (
        2,
        'Give the project a name: make init NAME="Billing API"',
    )
    done = make("NAME=Ada's API & Co", "LICENCE_HOLDER=Example `Ltd`", "KEEP=1")
    assert done.returncode == 0, done.stderr
    found = current(project)
    assert (found.name, found.author, found.holder) == (
        "Ada's API & Co",
        "Ada's API & Co contributors",
        "Example `Ltd`",
    )
    assert (project / "benchmarks").exists()


@pytest.mark.parametrize("name", ["Billing API", " 2nd  Try! ", "Größe"])
def test_the_database_is_named_like_the_project(name: str) -> None:
    assert slug(name).replace("-", "_") == AppSettings(name=name).identifier
