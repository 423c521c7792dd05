"""Runs migrations one process at a time. `migrations/env.py` calls it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, pool, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from plinth.database.connections import driver_arguments
from plinth.database.settings import DatabaseSettings
from plinth.errors import UnavailableError

log = logging.getLogger(__name__)

# The key of the advisory lock is arbitrary, but the same in every replica.
MIGRATION_LOCK = 0x6D696772617465  # "migrate"
WAIT_SECONDS, PAUSE_SECONDS = 600.0, 0.2


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """For autogenerate: tables that begin with `plinth_` come with revisions of plinth's, and are no models."""
    return kind != "table" or not (name or "").startswith("plinth_")


@asynccontextmanager
async def migrating(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """A connection that holds the lock of migrations. Raises UnavailableError where another holds it for too long."""
    # The role may have a limit for requests; a migration may take longer.
    options = driver_arguments(settings, "migrations", {"statement_timeout": "0"}) | {"command_timeout": None}
    engine = create_async_engine("postgresql+asyncpg://", poolclass=pool.NullPool, connect_args=options)
    try:
        async with engine.connect() as connection:
            await _lock(connection)
            yield connection
    finally:
        await engine.dispose()  # closing the only connection releases the lock, after an error too


async def _lock(connection: AsyncConnection) -> None:
    """Ask for the lock again and again. `pg_advisory_lock` would hold a snapshot while it waits.

    For the end of older snapshots, CREATE INDEX CONCURRENTLY waits in the process that has the lock: a deadlock.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + WAIT_SECONDS
    waiting = False
    while not await connection.scalar(select(func.pg_try_advisory_lock(MIGRATION_LOCK))):
        await connection.rollback()
        if loop.time() > give_up_at:
            raise UnavailableError(f"another migration has been running for {WAIT_SECONDS:g} s; see what it waits for")
        if not waiting:
            log.info("Waiting for another process that migrates")
        waiting = True
        await asyncio.sleep(PAUSE_SECONDS)
    await connection.commit()
