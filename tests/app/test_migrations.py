"""Migrations go up, down and up again, match the models, and may be started by every replica at once."""

import asyncio
import multiprocessing
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from anyio import to_thread
from sqlalchemy.exc import DBAPIError

from app.models import Base
from plinth.testing.environment import ROOT
from plinth.testing.migrations import alembic_config, migrate

REVISIONS = [script.revision for script in ScriptDirectory(str(ROOT / "migrations")).walk_revisions()][::-1]
TABLES = [*Base.metadata.tables]
REPLICAS = 10

# Everything a migration could leave behind: tables and columns, indexes, constraints, sequences, types.
SCHEMA = """
SELECT format('%s.%s %s %s', table_name, column_name, data_type, is_nullable) AS part
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid <> coalesce(to_regclass('alembic_version'), 0)
UNION ALL SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'
UNION ALL SELECT typname FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typname NOT LIKE '%alembic_version'
ORDER BY part
"""


def schema(url: str) -> list[str]:
    async def fetch() -> list[str]:
        connection = await asyncpg.connect(url)
        parts = [row["part"] for row in await connection.fetch(SCHEMA)]
        await connection.close()
        return parts

    return asyncio.run(fetch())


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_goes_up_down_and_up(empty_database_url: str, revision: str) -> None:
    command.upgrade(alembic_config(empty_database_url), f"{revision}-1" if REVISIONS.index(revision) else "base")
    before = schema(empty_database_url)
    command.upgrade(alembic_config(empty_database_url), revision)
    after = schema(empty_database_url)
    command.downgrade(alembic_config(empty_database_url), "-1")
    assert schema(empty_database_url) == before
    command.upgrade(alembic_config(empty_database_url), revision)
    assert schema(empty_database_url) == after != before


def test_models_and_migrations_do_not_drift(empty_database_url: str) -> None:
    migrate(empty_database_url)
    command.check(alembic_config(empty_database_url))


def test_there_is_one_head_and_files_go_by_date() -> None:
    directory = ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini")))
    assert len(directory.get_heads()) == min(1, len(REVISIONS))
    names = [Path(script.path).name for script in directory.walk_revisions()][::-1]
    assert names == sorted(names)


def test_replicas_that_migrate_at_once_all_succeed(empty_database_url: str) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "app.models", "app.settings", "sqlalchemy.dialects.postgresql.asyncpg"])
    replicas = [processes.Process(target=migrate, args=(empty_database_url,)) for _ in range(REPLICAS)]
    for replica in replicas:
        replica.start()
    for replica in replicas:
        replica.join()
    assert [replica.exitcode for replica in replicas] == [0] * REPLICAS
    assert bool(schema(empty_database_url)) == bool(TABLES)


@pytest.mark.parametrize("table", TABLES[:1])
async def test_a_table_in_use_stops_a_migration_soon(empty_database_url: str, table: str) -> None:
    """Waiting, it would make every query of the service wait behind it."""
    hurried = alembic_config(empty_database_url)
    hurried.set_main_option("lock_timeout", "100ms")
    await to_thread.run_sync(command.upgrade, hurried, "head")
    user = await asyncpg.connect(empty_database_url)
    async with user.transaction():
        await user.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        with pytest.raises(DBAPIError, match="lock timeout"):
            await to_thread.run_sync(command.downgrade, hurried, "base")
    await user.close()


def test_the_sql_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(Config(str(ROOT / "alembic.ini")), "head", sql=True)
    printed = capsys.readouterr().out
    assert [table for table in TABLES if f"CREATE TABLE {table} " not in printed] == []
