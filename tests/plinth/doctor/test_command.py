"""`app doctor`, whatever is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import plinth.settings
from plinth.cli import create_cli
from plinth.doctor import configuration
from plinth.doctor.findings import Finding
from plinth.settings import load_settings
from plinth.testing.network import reserved_port
from tests.plinth.doctor.support import Project

AWAY = "postgresql://me@127.0.0.1:1/shop"
WITHOUT_DATABASE = {"python", "packages", "settings", "variables", "secrets", "ports", "disk"}
WITHOUT_DATABASE |= {"storage", "redis", "database"}
LEVELS = ["ok", "warning", "error"]
ALL = WITHOUT_DATABASE | {"clock", "connections", "migrations", "drift"}


class Command:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Isolated(plinth.settings.Settings):
            model_config = {"env_file": str(root / ".env"), "secrets_dir": None}  # noqa: RUF012

        def get_settings() -> Isolated:
            return load_settings(Isolated)

        self._monkeypatch = monkeypatch
        self._get_settings = get_settings
        monkeypatch.setattr("plinth.doctor.cli.ROOT", root)

    def __call__(self, *arguments: str, worker: str | None = None, **environment: str) -> Result:
        cli: typer.Typer = create_cli(self._get_settings, "service.main:app", worker)
        storage = {"STORAGE_FOLDER": str(Path.cwd() / ".data/uploads")}
        return CliRunner().invoke(cli, ["doctor", *arguments], env=storage | environment)

    def found(self, **arguments: Any) -> dict[str, str]:
        """The worst level of each check."""
        done = self("--json", **arguments)
        levels: dict[str, str] = {}
        for each in json.loads(done.stdout):
            assert [*each] == ["check", "level", "sentence", "mend"]
            assert (each["mend"] is None) == (each["level"] == "ok"), each
            assert each["sentence"].endswith((".", "?"))
            levels[each["check"]] = max(each["level"], levels.get(each["check"], "ok"), key=LEVELS.index)
        assert done.exit_code == ("error" in levels.values())
        return levels


@pytest.fixture
def doctor(project: Project, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Of the project whose database is `project.url`."""
    return Command(project.ini.parent, monkeypatch)


def test_a_service_in_order(doctor: Command, project: Project, redis_url: str) -> None:
    project.migrate()
    with reserved_port() as port:
        environment = {"DATABASE_URL": project.url, "REDIS_URL": redis_url, "PORT": str(port)}
        assert doctor.found(**environment) == dict.fromkeys(ALL, "ok")
        done = doctor(**environment)
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "Nothing is wrong.")
    assert len(done.stdout.splitlines()) == len(ALL) + 2


def test_warnings_alone_are_no_failure(doctor: Command, project: Project) -> None:
    project.migrate()
    with reserved_port() as port:
        found = doctor.found(DATABASE_URL=project.url, DATABASE_POL_SIZE="1", PORT=str(port), METRICS_TOKEN="short")
    assert {check for check, level in found.items() if level != "ok"} == {"variables", "secrets"}


def test_without_a_database_all_the_rest_is_checked(doctor: Command, project: Project) -> None:
    found = doctor.found(DATABASE_URL=AWAY)
    assert found.keys() == WITHOUT_DATABASE
    assert found["database"] == "error"
    project.add("other", "one", "SELECT 1")
    assert doctor.found(DATABASE_URL=AWAY)["migrations"] == "error"


def test_migrations_run_on_the_direct_address(doctor: Command, project: Project) -> None:
    found = doctor.found(DATABASE_URL=AWAY, DATABASE_DIRECT_URL=project.url)
    assert (found["database"], found["migrations"]) == ("error", "error")
    assert "migrations" not in doctor.found(DATABASE_URL=project.url, DATABASE_DIRECT_URL=AWAY)


def test_jobs_are_examined_where_there_are_some(doctor: Command, database_url: str) -> None:
    assert "jobs" in doctor.found(DATABASE_URL=database_url, worker="service.main:create_worker")
    assert "jobs" not in doctor.found(DATABASE_URL=database_url)


@pytest.mark.parametrize(
    ("wrong", "unchecked"),
    [
        ({"PORT": "many"}, {"ports"}),
        ({"METRICS_PORT": "many"}, {"ports"}),
        ({"REDIS_URL": "x"}, {"redis"}),
        ({"STORAGE_TIMEOUT_SECONDS": "0"}, {"storage", "disk"}),
        ({"DATABASE_POOL_SIZE": "0"}, {"database", "clock", "connections", "migrations", "drift"}),
        ({"LOG_LEVEL": "LOUD", "MAIL_PORT": "x"}, set()),
    ],
)
def test_wrong_settings_leave_out_what_needs_them(
    doctor: Command, project: Project, wrong: dict[str, str], unchecked: set[str]
) -> None:
    project.migrate()
    found = doctor.found(**{"DATABASE_URL": project.url, **wrong})
    assert found.keys() == ALL - unchecked
    assert found["settings"] == "error"


def test_a_file_of_settings_that_cannot_be_read(doctor: Command, project: Project) -> None:
    (project.ini.parent / ".env").write_text("APP_NAME='not closed")
    assert doctor.found().keys() == {"python", "packages", "settings"}


def test_a_check_that_fails_ends_no_other(doctor: Command, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Iterator[Finding]:
        yield from ()
        raise RuntimeError("no way")

    monkeypatch.setattr(configuration, "unknown", fails)
    found = doctor.found(DATABASE_URL=project.url)
    assert (found["variables"], found["secrets"]) == ("error", "ok")
