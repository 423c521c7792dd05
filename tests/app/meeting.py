"""A request that meets the transaction of another."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg


async def while_locked(
    onlooker: asyncpg.Connection, database_url: str, change: str, request: Callable[[], Coroutine[Any, Any, Any]]
) -> Any:
    """The answer to a request that meets a change of another transaction, which is committed while it waits."""
    other = await asyncpg.connect(database_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(change)
        task = asyncio.create_task(request())
        async with asyncio.timeout(30):
            while not task.done():
                if await onlooker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    break
                await asyncio.sleep(0.01)
        assert not task.done(), "it did not wait"
        await transaction.commit()
        return await task
    finally:
        await other.close()
