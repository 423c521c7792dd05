"""A replica answers reads that cannot tell how far it is behind; all others go to the primary.

What a read must see is a moment: all that was committed until then. For most reads it is this service's last write;
for what is loaded into the cache it is the last invalidation of the names it is kept under (`must_see`), so that other
writes, however many, leave it to the replica, and nothing is kept that was out of date when it was read.

How far the replica has come is asked every now and then, and never for a read: what the primary had written at some
moment is waited for on the replica, and then the replica is known to have all that was committed until that moment. A
guess ("two seconds are enough") would be wrong where it matters, on a replica that is late.

A moment may come from another host's clock, which may go wrong by `lag_seconds` at most: so long the replica has to be
ahead of it. To clients, that is the time after a write for which they surely read the primary. Processes hear of one
another's writes as the cache does, through Redis; without it, each knows its own, and of the others' it sees those that
are older than `lag_seconds`. A service that writes all the time, several times in `lag_seconds`, reads from its replica
only what it loads for the cache: clients would have to carry a token of what they have seen to do better.
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
from plinth.database.query import Query
from plinth.database.reads import Reads
from plinth.database.settings import DatabaseSettings
from plinth.errors import UnavailableError

log = logging.getLogger(__name__)

must_see: ContextVar[float | None] = ContextVar("must_see", default=None)
"""Unix time, in seconds, as all moments here; None for what this service has written until now."""


def _bytes(position: Any) -> Any:
    return cast(func.pg_wal_lsn_diff(position, literal_column("'0/0'")), BigInteger)


WRITTEN = Query(int, select(_bytes(func.pg_current_wal_flush_lsn())))
# A replica that was promoted is none any more.
REPLAYED = Query(
    lambda position: position or 0, select(case((func.pg_is_in_recovery(), _bytes(func.pg_last_wal_replay_lsn()))))
)


class Replica:
    """How far it has come, as `primary` and `replica` tell when they are asked."""

    def __init__(self, primary: Reads, replica: Reads, lag_seconds: float) -> None:
        self.heard_at: Callable[[], float] = lambda: 0.0
        """When other processes last wrote, as far as is known."""
        self._primary, self._replica = primary, replica
        self._lag_seconds = lag_seconds
        self._wrote_at = 0.0
        self._has_all_until = 0.0
        self._lost = False

    def wrote(self) -> None:
        """This process has committed."""
        self._wrote_at = time()

    def has_all(self) -> bool:
        """That a read must see, which is asked now."""
        moment = must_see.get()
        if moment is None:
            moment = max(self._wrote_at, self.heard_at())
        return self._has_all_until > max(moment + self._lag_seconds, time() - self._lag_seconds)

    def lose(self, error: Exception) -> None:
        """It has answered with `error`: it is asked nothing more until it is found again."""
        self._has_all_until = 0.0
        if not self._lost:
            self._lost = True
            log.warning("Reads go to the primary alone, since the replica lags or cannot be asked: %r", error)

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
                self.lose(error)
            await asyncio.sleep(self._lag_seconds / 4)

    async def _catch_up(self) -> None:
        asked_at = time()
        [written] = await self._primary.all(WRITTEN)
        while (await self._replica.all(REPLAYED))[0] < written:  # noqa: ASYNC110 - it can only be asked
            await asyncio.sleep(self._lag_seconds / 40)
        self._has_all_until = asked_at
        if self._lost:
            self._lost = False
            log.info("Reads go to the replica again")


class ReplicaReads(Reads):
    """Reads on the replica while it has all that a read must see, else on the primary."""

    def __init__(self, settings: DatabaseSettings, application_name: str, on_replica: Reads, replica: Replica) -> None:
        super().__init__(settings, application_name, settings.read_pool_size)
        self._on_replica = on_replica
        self._replica = replica

    async def open(self) -> None:
        await super().open()
        await self._on_replica.open()

    async def close(self) -> None:
        await super().close()
        await self._on_replica.close()

    async def fetch_once(self, sql: str, arguments: list[Any]) -> list[asyncpg.Record]:
        if self._replica.has_all():
            try:
                return await self._on_replica.fetch_once(sql, arguments)
            except asyncpg.QueryCanceledError:
                raise  # what is too slow there is too slow here
            except (*DRIVER_ERRORS, UnavailableError) as error:
                # A table that is not there yet, or a version of a row that no longer is: the primary has both.
                if isinstance(error, UnavailableError) or is_connection_lost(error):
                    self._replica.lose(error)
        return await super().fetch_once(sql, arguments)
