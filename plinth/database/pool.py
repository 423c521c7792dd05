"""A pool of asyncpg connections, of fixed size, whose use costs next to nothing.

asyncpg's own pool makes a task and a proxy for each use, which is as much work as a read itself.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg

from plinth.database.errors import DATABASE_AWAY, DATABASE_BUSY, REFUSALS
from plinth.database.settings import DatabaseSettings
from plinth.errors import UnavailableError

PREPARED_STATEMENTS = 500  # kept by each connection

_Waiter: TypeAlias = "asyncio.Future[asyncpg.Connection | None]"


class Pool:
    """Opens a connection when one is wanted and none is idle, until there are `size`; later callers wait in turn."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        size: int,
        *,
        timeout_seconds: float,
        recycle_seconds: float,
    ) -> None:
        self._connect = connect
        self._size = size
        self._timeout_seconds = timeout_seconds
        self._recycle_seconds = recycle_seconds
        self._closed = False
        self._opened = 0  # connections that are open or about to be
        self._opened_at: dict[asyncpg.Connection, float] = {}
        # The last one used is the next: those at the other end grow old, and are replaced.
        self._idle: list[asyncpg.Connection] = []
        self._waiters: deque[tuple[float, _Waiter]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def acquire(self) -> asyncpg.Connection:
        """Raises UnavailableError when all stay busy for too long, or the database cannot be reached."""
        while self._idle:
            connection = self._idle.pop()
            if self._usable(connection):
                return connection
            self.discard(connection)
        if self._opened < self._size:
            self._opened += 1
            return await self._open()
        return await self._wait() or await self._open()

    def release(self, connection: asyncpg.Connection) -> None:
        """Give back a connection whose statement has ended; one that nobody can use makes room for another."""
        if self._closed or connection.is_closed() or connection.is_in_transaction():
            self.discard(connection)
        elif waiter := self._next_waiter():
            waiter.set_result(connection)
        else:
            self._idle.append(connection)

    def discard(self, connection: asyncpg.Connection) -> None:
        """Give up a connection that is broken, or whose statement nobody waits for any more."""
        connection.terminate()
        self._opened_at.pop(connection, None)
        self._make_room()

    async def close(self) -> None:
        """Close what is idle, and what is still in use as soon as it comes back."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        while waiter := self._next_waiter():
            waiter.set_exception(UnavailableError(DATABASE_BUSY))
        while self._idle:
            connection = self._idle.pop()
            await connection.close(timeout=2)
            self.discard(connection)

    def _usable(self, connection: asyncpg.Connection) -> bool:
        age = asyncio.get_running_loop().time() - self._opened_at[connection]
        return not connection.is_closed() and age < self._recycle_seconds

    async def _open(self) -> asyncpg.Connection:
        """Open the connection that `_opened` already counts."""
        try:
            connection = await self._connect()
        except BaseException:
            self._make_room()
            raise
        self._opened_at[connection] = asyncio.get_running_loop().time()
        return connection

    def _make_room(self) -> None:
        """One connection less: whoever waits longest may open another in its place."""
        if waiter := self._next_waiter():
            waiter.set_result(None)
        else:
            self._opened -= 1

    async def _wait(self) -> asyncpg.Connection | None:
        """A connection that came free, or None where there is room to open one."""
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        deadline = loop.time() + self._timeout_seconds
        self._waiters.append((deadline, waiter))
        if self._alarm is None:
            self._alarm = loop.call_at(deadline, self._give_up)
        try:
            return await waiter
        except asyncio.CancelledError:
            # It may have been served in the same moment as it was cancelled; if not, it is passed over.
            if not waiter.cancelled() and waiter.exception() is None:
                served = waiter.result()
                self._make_room() if served is None else self.release(served)
            raise

    def _give_up(self) -> None:
        """Whoever waits longest is the first to have waited too long: one alarm does for all."""
        self._alarm = None
        loop = asyncio.get_running_loop()
        while self._waiters:
            deadline, waiter = self._waiters[0]
            if not waiter.done() and deadline > loop.time():
                self._alarm = loop.call_at(deadline, self._give_up)
                return
            self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(UnavailableError(DATABASE_BUSY))

    def _next_waiter(self) -> "_Waiter | None":
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None


def connection_options(settings: DatabaseSettings, application_name: str) -> dict[str, Any]:
    """What every connection carries: this service's name and its time limits."""
    return {
        "timeout": settings.connect_timeout_seconds,
        # The server ends a statement that is too slow; the client only one whose server fell silent.
        "command_timeout": settings.statement_timeout_seconds + 1,
        "statement_cache_size": PREPARED_STATEMENTS if settings.prepared_statements else 0,
        "server_settings": {
            "application_name": application_name,
            "statement_timeout": str(int(settings.statement_timeout_seconds * 1000)),
            "jit": "off",  # planning short statements would cost more than it saves
        },
    }


async def connect(**options: Any) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(**options)
    except REFUSALS as error:
        raise UnavailableError(DATABASE_AWAY) from error
