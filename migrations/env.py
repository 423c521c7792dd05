"""Migrations run one at a time: a second replica waits for the first, and then finds nothing to do."""

import asyncio
from typing import Literal

from alembic import context
from sqlalchemy import Connection, TypeDecorator, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.models import Base
from app.settings import get_settings

# The key of the advisory lock is arbitrary, but the same in every replica.
MIGRATION_LOCK = 0x6D696772617465  # "migrate"

LOCK_TIMEOUT = "10min"  # for the replica that migrates first


def render_item(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write our own column types as the types that PostgreSQL stores, because a migration outlives the code."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


def run_offline() -> None:
    """Print the SQL (`alembic upgrade head --sql`)."""
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run(connection: Connection) -> None:
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.execute(text(f"SET lock_timeout = '{context.config.get_main_option('lock_timeout')}'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    # Closing the only connection releases the lock, whatever happened.
    url = context.config.get_main_option("sqlalchemy.url") or get_settings().database.direct.url
    # The role may have a limit for requests; a migration may take longer.
    options = {"timeout": 10, "server_settings": {"application_name": "migrations", "statement_timeout": "0"}}
    engine = create_async_engine(url, poolclass=pool.NullPool, connect_args=options)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
