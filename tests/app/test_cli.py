import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.settings import get_settings
from plinth.testing.environment import ROOT, child_environment


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=tempfile.gettempdir(),
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def in_process(*arguments: str, **environment: str) -> Result:
    """As `run`, without the time that a process takes to start, for what does not depend on one."""
    get_settings.cache_clear()
    try:
        return CliRunner().invoke(app, arguments, env=environment)
    finally:
        get_settings.cache_clear()


@pytest.mark.parametrize("command", ["dev", "migrate", "serve"])
def test_an_unreachable_database_is_reported_in_one_sentence(command: str) -> None:
    environment = {"DATABASE_WAIT_SECONDS": "0", "LOG_LEVEL": "WARNING"}
    done = run(command, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", **environment)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "database" in done.stderr
    assert done.stdout == ""


def test_a_migration_goes_past_the_pooler(database_url: str) -> None:
    unreachable = "postgresql://nobody@127.0.0.1:1/nothing"
    done = in_process("migrate", DATABASE_URL=unreachable, DATABASE_DIRECT_URL=database_url)
    assert done.exit_code == 0, done.stderr


def test_migrating_to_an_unknown_revision_is_reported_in_one_sentence(database_url: str) -> None:
    done = run("migrate", "nonsense", DATABASE_URL=database_url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_drain_makes_the_file_that_the_server_looks_for(tmp_path: Path) -> None:
    file = tmp_path / "drain"
    assert in_process("drain", SERVER_DRAIN_FILE=str(file), SERVER_DRAIN_SECONDS="0").exit_code == 0
    assert file.exists()
    for wrong, message in (("", "set SERVER_DRAIN_FILE"), (str(tmp_path / "no" / "folder"), "cannot be written")):
        refused = in_process("drain", SERVER_DRAIN_FILE=wrong)
        assert refused.exit_code == 1
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_openapi_prints_the_document() -> None:
    document = json.loads(run("openapi").stdout)
    assert document["openapi"].startswith("3.1")
    assert "/health/live" in document["paths"]


def test_the_doctor_finds_no_drift_in_a_migrated_database(database_url: str) -> None:
    found = json.loads(run("doctor", "--json", DATABASE_URL=database_url).stdout)
    assert {each["check"]: each["level"] for each in found if each["check"] in {"migrations", "drift"}} == {
        "migrations": "ok",
        "drift": "ok",
    }


def test_without_the_packages_the_right_python_is_named() -> None:
    argv = [sys.executable, "-S", "-m", "app", "doctor"]
    done = subprocess.run(argv, cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r".* has no `\w+`: run `.venv/bin/app`, which `make environment` creates.\n", done.stderr)


def test_help_lists_the_commands() -> None:
    shown = in_process("--help").stdout
    for command in ("check", "doctor", "serve", "dev", "worker", "migrate", "drain", "openapi", "jobs"):
        assert f" {command} " in shown


def commands() -> list[str]:
    return [str(each.name or getattr(each.callback, "__name__", "")) for each in app.registered_commands]


@pytest.mark.parametrize("command", commands())
def test_help_of_a_command_has_an_example(command: str) -> None:
    passed_on = command in {"new", "remove"}  # to another process, whose output is not caught in this one
    shown = run(command, "--help").stdout if passed_on else CliRunner().invoke(app, [command, "--help"]).stdout
    assert re.search(rf"Example: ([A-Z_]+=\S+ )?app {command}\b", shown), shown


def test_the_shell_completes_commands_whatever_the_settings() -> None:
    completed = run(_APP_COMPLETE="complete_bash", COMP_WORDS="app m", COMP_CWORD="1", PORT="none")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "migrate\n", "")
