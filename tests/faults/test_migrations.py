"""All replicas of a release migrate at the same moment, as they do where each container begins with `app migrate`."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from plinth.testing.environment import ROOT, child_environment
from tests.faults.serving import LIMIT_SECONDS

REPLICAS, ROUNDS = 10, 20
HEAD = "2"


@pytest.fixture
async def replicas() -> AsyncIterator[list[Process]]:
    """They start once, so that in each round all begin within a moment."""
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(replica()) for _ in range(REPLICAS)]
        await answers(started, "ready")
        yield started


@asynccontextmanager
async def replica() -> AsyncIterator[Process]:
    argv = [sys.executable, "-m", "tests.faults.migrator"]
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, env=child_environment(), stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def answers(replicas: list[Process], word: str) -> None:
    """A replica that fails has ended, and its answer is empty; pytest shows its traceback."""
    async with asyncio.timeout(LIMIT_SECONDS):
        lines = await asyncio.gather(*(each.stdout.readline() for each in replicas if each.stdout))
    assert lines == [f"{word}\n".encode()] * REPLICAS


@asynccontextmanager
async def fresh_database(onlooker: asyncpg.Connection, database_url: str, round: int) -> AsyncIterator[str]:
    name = f"migrated_{os.getpid()}_{round}"
    await onlooker.execute(f"CREATE DATABASE {name}")
    try:
        yield make_url(database_url).set(database=name).render_as_string(hide_password=False)
    finally:
        await onlooker.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_ten_replicas_that_migrate_at_once_all_succeed_and_apply_each_revision_once(
    replicas: list[Process], onlooker: asyncpg.Connection, database_url: str
) -> None:
    for round in range(ROUNDS):
        async with fresh_database(onlooker, database_url, round) as url:
            for each in replicas:
                assert each.stdin
                each.stdin.write(f"{url}\n".encode())
            await answers(replicas, "migrated")
            connection = await asyncpg.connect(url)
            assert await connection.fetchval("SELECT count(*) FROM entries") == 1
            assert await connection.fetchval("SELECT array_agg(version_num) FROM alembic_version") == [HEAD]
            index = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_entries_text'::regclass"
            assert await connection.fetchval(index)
            await connection.close()
