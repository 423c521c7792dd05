"""A streaming replica serves the reads for which it is recent enough; the primary serves all others.

A read has to show everything that was committed before some instant. For most reads that is the last write of this
service. For a value that is loaded into the cache it is the last invalidation of its tags (`must_see`): other writes,
however many, do not send the load to the primary, and no value is cached that was out of date when it was read.

The replica's progress is measured in the background, never for a read: the primary's flushed WAL position is read, and
once the replica has replayed it, the replica has everything that was committed before that instant. A fixed delay ("two
seconds are enough") would be wrong on a replica that lags.

An instant may come from the clock of another host, which is assumed to be wrong by `lag_seconds` at most: the replica
has to be ahead of the instant by that much. For that long after a write, a client reads from the primary. Processes
learn of each other's writes as the cache does, through Redis. Without Redis, a process knows its own writes only, and
sees others' once they are older than `lag_seconds`. A service that writes several times in `lag_seconds` reads from the
replica only what it loads for the cache.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from time import time
from typing import Any

import asyncpg
from sqlalchemy import BigInteger, case, cast, func, literal_column, select

from plinth.database.errors import DRIVER_ERRORS, is_connection_lost
from plinth.database.pulse import Pulse
from plinth.database.query import Query
from plinth.database.reads import Reads
from plinth.database.settings import DatabaseSettings
from plinth.errors import UnavailableError

log = logging.getLogger(__name__)

must_see: ContextVar[float | None] = ContextVar("must_see", default=None)
"""The instant that reads of this context have to show, in Unix seconds; None for the last write of this service."""


def _bytes(position: Any) -> Any:
    return cast(func.pg_wal_lsn_diff(position, literal_column("'0/0'")), BigInteger)


WRITTEN = Query(int, select(_bytes(func.pg_current_wal_flush_lsn())))
# NULL where the server was promoted and is no replica any more.
REPLAYED = Query(
    lambda position: position or 0, select(case((func.pg_is_in_recovery(), _bytes(func.pg_last_wal_replay_lsn()))))
)


class Replica:
    """Measures the progress of a replica. `primary` and `replica` are pools for that alone."""

    def __init__(self, primary: Reads, replica: Reads, lag_seconds: float) -> None:
        self.heard_at: Callable[[], float] = lambda: 0.0
        """When another process last wrote, as far as is known: Unix time in seconds."""
        self._primary, self._replica = primary, replica
        self._lag_seconds = lag_seconds
        self._wrote_at = 0.0
        self._has_all_until = 0.0
        self._lost = False

    def wrote(self) -> None:
        """Record that this process has committed."""
        self._wrote_at = time()

    def has_all(self) -> bool:
        """Whether it has everything that a read of this context has to show."""
        instant = must_see.get()
        if instant is None:
            instant = max(self._wrote_at, self.heard_at())
        return self._has_all_until > max(instant + self._lag_seconds, time() - self._lag_seconds)

    def mark_lost(self, error: Exception) -> None:
        """Send it no more reads until its progress can be measured again."""
        self._has_all_until = 0.0
        if not self._lost:
            self._lost = True
            log.warning("All reads go to the primary, because the replica lags or cannot be reached: %r", error)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._lag_seconds):
                    await self._catch_up()
            except (*DRIVER_ERRORS, UnavailableError) as error:
                self.mark_lost(error)
            await asyncio.sleep(self._lag_seconds / 4)

    async def _catch_up(self) -> None:
        measured_at = time()
        [written] = await self._primary.all(WRITTEN)
        while (await self._replica.all(REPLAYED))[0] < written:  # noqa: ASYNC110 - it has to be polled
            await asyncio.sleep(self._lag_seconds / 40)
        self._has_all_until = measured_at
        if self._lost:
            self._lost = False
            log.info("Reads go to the replica again")


class ReplicaReads(Reads):
    """Reads on the replica while it has all that a read must see, else on the primary."""

    def __init__(
        self,
        settings: DatabaseSettings,
        application_name: str,
        on_replica: Reads,
        replica: Replica,
        pulse: Pulse,
    ) -> None:
        super().__init__(settings, application_name, settings.read_pool_size, pulse)
        self._on_replica = on_replica
        self._replica = replica

    async def open(self) -> None:
        await super().open()
        await self._on_replica.open()

    async def close(self) -> None:
        await super().close()
        await self._on_replica.close()

    def report(self) -> None:
        super().report()
        self._on_replica.report()

    async def fetch_once(self, sql: str, arguments: list[Any], custom_plan: bool = False) -> list[asyncpg.Record]:
        if self._replica.has_all():
            try:
                return await self._on_replica.fetch_once(sql, arguments, custom_plan)
            except asyncpg.QueryCanceledError:
                raise  # what is too slow there is too slow here
            except (*DRIVER_ERRORS, UnavailableError) as error:
                # A table that is not there yet, or a version of a row that no longer is: the primary has both.
                if isinstance(error, UnavailableError) or is_connection_lost(error):
                    self._replica.mark_lost(error)
        return await super().fetch_once(sql, arguments, custom_plan)
