"""What a caller of the database waits for, so that it can be ended from outside: by `Pulse`."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import asyncpg


class Operation:
    """What a caller waits for: a connection, and then what is run on it."""

    __slots__ = ("_limit", "began_at", "connection")

    def __init__(self, began_at: float, connection: Any) -> None:
        self.began_at = began_at
        self.connection = connection
        self._limit: asyncio.Timeout | None = None

    async def connect(self, connecting: Awaitable[Any]) -> Any:
        """Wait for a connection, and return it. Raises TimeoutError where the operation is stopped before."""
        self.connection = None
        try:
            async with asyncio.timeout(None) as self._limit:
                self.connection = await connecting
        finally:
            self._limit = None
        return self.connection

    def stop(self) -> None:
        """End it at once, as if its connection had been lost or had not been made in time."""
        if self.connection is not None:
            with suppress(asyncpg.InterfaceError):  # it was returned to its pool meanwhile
                self.connection.terminate()
        elif self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())
            self._limit = None  # it may not be rescheduled again


acquiring: ContextVar[Operation | None] = ContextVar("acquiring", default=None)
"""What waits for a connection of SQLAlchemy's pool in this context, which may have to be made."""
