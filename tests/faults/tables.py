"""The tables of fault_app.py, for tests that serve it alone."""

import asyncio

import asyncpg
import pytest

from tests.faults.service import TABLES


def execute(database_url: str, sql: str) -> None:
    """Run it by a connection of its own: the service receives no invalidation."""

    async def run() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(sql)
        await connection.close()

    asyncio.run(run())


@pytest.fixture
def tables(empty_database_url: str) -> dict[str, str]:
    """The settings for a database with these tables alone."""
    execute(empty_database_url, TABLES)
    return {"DATABASE_URL": empty_database_url, "DATABASE_REQUIRE_MIGRATED": "false"}
