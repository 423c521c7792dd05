"""Migrations of several processes at once, one of which builds an index without a lock on its table."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from plinth.database import DatabaseSettings
from plinth.database.migrations import migrating
from plinth.errors import UnavailableError
from plinth.settings import Settings
from plinth.testing.environment import ROOT

INDEX = """
from alembic import op

revision, down_revision = "concurrent", {head!r}
WAITING = (
    "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'migrations'"
    " AND datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'advisory|ROLLBACK')"
    " LOOP PERFORM pg_sleep(0.01), pg_stat_clear_snapshot(); END LOOP; END $$"
)


def upgrade() -> None:
    op.execute("CREATE TABLE indexed (id int)")
    with op.get_context().autocommit_block():
        op.execute(WAITING)
        op.execute("CREATE INDEX CONCURRENTLY ix_indexed_id ON indexed (id)")


def downgrade() -> None:
    op.drop_table("indexed")
"""


@pytest.fixture
async def fresh_url(database_url: str, worker: str, onlooker: asyncpg.Connection) -> str:
    name = f"concurrent_{worker}_{os.getpid()}"
    await onlooker.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await onlooker.execute(f"CREATE DATABASE {name}")
    return f"{database_url.rpartition('/')[0]}/{name}"


async def test_a_second_process_waits_while_the_first_indexes_concurrently(fresh_url: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (tmp_path / "migrations/versions").glob("*.py"):
        file.unlink()
    (tmp_path / "migrations/versions/concurrent.py").write_text(INDEX.format(head=None))

    environ = os.environ | {"DATABASE_URL": fresh_url, "PYTHONPATH": str(ROOT)}
    if direct := os.environ.get("TEST_DATABASE_DIRECT_URL"):  # set where DATABASE_URL leads through PgBouncer
        of_the_test = make_url(direct).set(database=make_url(fresh_url).database)
        environ["DATABASE_DIRECT_URL"] = of_the_test.render_as_string(hide_password=False)

    async def migrate() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alembic", "upgrade", "head"),
            cwd=tmp_path,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, output

    async with asyncio.timeout(40):
        await asyncio.gather(migrate(), migrate())
    connection = await asyncpg.connect(fresh_url)
    assert await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_indexed_id'::regclass")
    await connection.close()


async def test_a_lock_that_is_held_for_too_long_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plinth.database.migrations.WAIT_SECONDS", 0.0)
    database: DatabaseSettings = settings.database
    async with migrating(database):
        with pytest.raises(UnavailableError, match="another migration"):
            async with migrating(database):
                pass
    async with migrating(database):
        pass
