"""Many rows at once, by PostgreSQL's COPY: about a hundred times faster than INSERTs."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession


async def copy_rows(session: AsyncSession, table: str, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Stream rows into a table inside the session's transaction. Values are the driver's: money in minor units."""
    # COPY starts no transaction by itself, and without one it would be committed at once.
    connection = await session.connection()
    await connection.exec_driver_sql("SELECT 1")
    raw = await connection.get_raw_connection()
    assert raw.driver_connection is not None  # noqa: S101 - for the type checker
    await raw.driver_connection.copy_records_to_table(table, columns=columns, records=rows)
