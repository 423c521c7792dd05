"""`make backup-drill`: the restored copy is identical, or the difference is reported."""

import os
import sys
from pathlib import Path

import asyncpg
import pytest

from app.repositories.example_data import load_example_data
from plinth.testing.client import Service
from plinth.testing.postgres import binaries
from tests.tools.support import ROOT, outcome

PROGRAMS = binaries(int(os.environ.get("PG", "18")))
WRITE = f"""{PROGRAMS}/psql "${{1#--dbname=}}" -qc "INSERT INTO categories (name) VALUES ('Written meanwhile')" >&2"""


@pytest.fixture
async def catalogue(service: Service, empty_tables: None, database_url: str) -> str:
    async with service.state["database"].sessions.begin() as session:
        await load_example_data(session, 100)
    return database_url


@pytest.mark.parametrize(
    ("program", "script", "message"),
    [
        ("pg_dump", "echo pg_dump 15", ""),
        ("pg_dump", f'{WRITE}\n$real "$@"', ""),
        (
            "pg_dump",
            '$real "$@" --exclude-table-data=products',
            "differs from the original: table public.products.\n",
        ),
        ("pg_restore", '$real "$@" --section=pre-data --section=data', "constraint products.pk_products, "),
        ("pg_restore", "exit 1", "pg_restore failed: "),
    ],
)
async def test_a_drill(catalogue: str, tmp_path: Path, program: str, script: str, message: str) -> None:
    for name in ("pg_dump", "pg_restore"):
        run = script if name == program else '$real "$@"'
        (tmp_path / name).write_text(f"#!/bin/sh -e\nreal={PROGRAMS}/{name}\n{run}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"DATABASE_URL": catalogue, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    code, printed, error = outcome([sys.executable, "-m", "tools.backup"], ROOT, environment)
    assert (code, message in error) == (1 if message else 0, True), error
    assert ("The copy is identical: " in printed) == (not message), printed
    connection = await asyncpg.connect(catalogue)
    assert not await connection.fetch("SELECT FROM pg_database WHERE datname LIKE current_database() || '_drill%'")
    await connection.close()
