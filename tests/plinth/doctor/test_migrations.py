"""Migrations and drift, of a project with one table of its own."""

import asyncio

import asyncpg
import pytest

from plinth.database.migrations import MIGRATION_LOCK
from plinth.doctor.migrations import migrations
from tests.plinth.doctor.support import Project, execute, levels, the_one


@pytest.mark.parametrize(("reached", "lacks"), [(None, 2), ("one", 1)])
def test_pending_migrations_are_counted(project: Project, reached: str | None, lacks: int) -> None:
    if reached:
        project.migrate(reached)
    finding = the_one(project.examined())
    assert (finding.level, finding.mend) == ("error", "app migrate")
    assert finding.sentence == f"The database lacks {lacks} of 2 migrations."


def test_a_database_in_order(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.migrate()
    assert levels(project.examined()) == {"migrations": "ok", "drift": "ok"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "described"),
    [
        ("ALTER TABLE lamps DROP COLUMN name", "add_column lamps.name"),
        ("ALTER TABLE lamps ADD COLUMN note text", "remove_column lamps.note"),
        ("ALTER TABLE lamps ALTER COLUMN name DROP NOT NULL", "modify_nullable lamps.name"),
        ("CREATE INDEX bright ON lamps (name)", "remove_index bright"),
        ("CREATE TABLE shades (id int)", "remove_table shades"),
        ("DROP TABLE lamps", "add_table lamps"),
        ("ALTER TABLE lamps ADD a int, ADD b int, ADD c int, ADD d int", "and 1 more"),
    ],
)
def test_tables_that_differ_from_the_models_are_found(project: Project, change: str, described: str) -> None:
    project.migrate()
    execute(project.url, change)
    finding = the_one(project.examined(), "drift")
    assert finding.level == "error"
    assert f" {described}" in finding.sentence
    assert (finding.mend or "").startswith("make migration NAME=")


@pytest.mark.parametrize(("production", "level"), [(False, "error"), (True, "warning")])
def test_a_revision_of_another_version_is_found(project: Project, production: bool, level: str) -> None:
    project.migrate()
    execute(project.url, "UPDATE alembic_version SET version_num = 'of_a_branch'")
    finding = the_one(project.examined(production))
    assert (finding.level, "is at of_a_branch, of a newer version" in finding.sentence) == (level, True)


def test_several_heads_are_found_without_a_database(project: Project) -> None:
    assert [*migrations(None, False, project.ini)] == []
    project.add("other", "one", "SELECT 1")
    finding = the_one(migrations(None, False, project.ini))
    assert (finding.level, finding.mend) == ("error", ".venv/bin/alembic merge heads -m 'merge the branches'")
    assert "other, two" in finding.sentence


@pytest.mark.filterwarnings("ignore:Revision nowhere:UserWarning")
def test_a_history_with_a_gap_is_found(project: Project) -> None:
    project.add("three", "nowhere", "SELECT 1")
    finding = the_one(project.examined())
    assert finding.level == "error"
    assert "are no history" in finding.sentence


def test_a_migration_that_runs_is_not_waited_for(project: Project) -> None:
    project.migrate()
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(project.url))
        runner.run(connection.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
        finding = the_one(project.examined())
        runner.run(connection.close())
    assert (finding.level, "migrates at this moment" in finding.sentence) == ("ok", True)


def test_a_user_without_rights_is_found(project: Project, worker: str) -> None:
    project.migrate()
    role = f"doctor_stranger_{worker}"  # roles are the whole server's
    execute(project.url, f"CREATE ROLE {role} LOGIN")
    try:
        project.url = project.url.replace("postgres@", f"{role}@")
        finding = the_one(project.examined())
    finally:
        execute(project.url.replace(f"{role}@", "postgres@"), f"DROP ROLE {role}")
    assert (finding.level, "alembic_version cannot be read" in finding.sentence) == ("error", True)


def test_tables_that_cannot_be_compared_are_an_error(project: Project) -> None:
    project.migrate()
    env = project.ini.parent / "migrations/env.py"
    env.write_text(env.read_text().replace("target_metadata=metadata", "target_metadata=None"))
    finding = the_one(project.examined(), "drift")
    assert (finding.level, "could not be compared" in finding.sentence) == ("error", True)
    assert "does not provide a MetaData object" in finding.sentence
