"""One `Database` per process: SQLAlchemy's engine for transactions and asyncpg's pool for reads, both of fixed size."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from sqlalchemy import ColumnElement, Integer, cast, func, literal, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from plinth.database.connections import (
    PREPARED_STATEMENTS,
    driver_arguments,
    pooled_connections,
    unpooled_connections,
)
from plinth.database.events import listen
from plinth.database.exports import Exports
from plinth.database.notifications import Notifications
from plinth.database.pools import ChangesPool, HeldConnections
from plinth.database.pulse import Pulse
from plinth.database.query import Query
from plinth.database.reads import Reads
from plinth.database.replica import Replica, ReplicaReads
from plinth.database.sessions import Sessions
from plinth.database.settings import DatabaseSettings
from plinth.database.statements import StatementLog
from plinth.errors import UnavailableError

log = logging.getLogger(__name__)

PROBE_IDLE_SECONDS = 15
"""A connection that is idle for longer is closed: some networks drop those silently, and that is no silent server."""
PING = Query(int, select(literal(1)))


def _setting(name: str) -> ColumnElement[int]:
    return cast(func.current_setting(name), Integer)


AVAILABLE_CONNECTIONS = Query(
    int,
    select(_setting("max_connections") - _setting("superuser_reserved_connections") - _setting("reserved_connections")),
)


class Database:
    """`sessions.begin()` is where something changes; `reads` reads without a transaction; `exports` reads all."""

    def __init__(self, settings: DatabaseSettings, application_name: str) -> None:
        # Probes have a connection of their own: that all others are busy is no reason to receive no more requests.
        self._probes = _probe(settings, application_name)
        pulse = self._probes.pulse
        self.reads = Reads(settings, application_name, settings.read_pool_size, pulse)
        self._opened = [self._probes, self.reads]
        self.exports = Exports(settings, application_name, self.reads.log, pulse)
        self.pooled_connections = pooled_connections(settings)
        self.unpooled_connections = unpooled_connections(settings)
        self.replica: Replica | None = None
        if settings.replica_url:
            there = settings.model_copy(update={"url": settings.replica_url, "replica_url": None})
            probe = _probe(there, application_name)
            self.replica = Replica(self._probes, probe, settings.replica_lag_seconds)
            on_replica = Reads(there, application_name, settings.read_pool_size, probe.pulse, name="replica")
            self.reads = ReplicaReads(settings, application_name, on_replica, self.replica, pulse)
            self._opened = [self._probes, self.reads, probe]
        self._engine = create_engine(settings, application_name, pulse, self.reads.log)
        self._held = HeldConnections(self._engine.sync_engine, settings.held_seconds)
        self.notifications = Notifications(settings, application_name, pulse)
        on_commit = self.replica.wrote if self.replica else None
        self.sessions = Sessions(self._engine, on_commit, self.reads.cursors, pulse.check)

    async def warn_of_too_many_connections(self, workers: int, others: int = 0) -> None:
        """Compare what the workers of this host may open with what the server allows ordinary users.

        `others` is how many connections each of them has beside its pools.
        """
        wanted = workers * (self.pooled_connections + others)
        try:
            available = await self.reads.first(AVAILABLE_CONNECTIONS)
        except UnavailableError:
            # Not a reason to refuse to start: a worker that is replaced during a failover must come up.
            log.warning("PostgreSQL cannot be reached yet; /health/ready answers 503 until it can")
            return
        if available is not None and wanted > available:
            log.warning(
                "%d workers may open %d connections but PostgreSQL has %d for them: lower WEB_CONCURRENCY, "
                "JOB_PROCESSES, DATABASE_POOL_SIZE or DATABASE_READ_POOL_SIZE, or raise max_connections",
                workers,
                wanted,
                available,
            )

    async def ping(self) -> None:
        """Raises UnavailableError unless the database answers."""
        await self._probes.first(PING)

    def sample(self) -> None:
        """Set the metrics of the pools, and log connections of transactions that are held for too long."""
        pool = self._engine.pool
        if isinstance(pool, ChangesPool):
            pool.report()
        self.reads.report()
        self._held.check()

    async def open(self) -> None:
        for reads in self._opened:
            await reads.open()

    async def close(self) -> None:
        await self.notifications.close()
        for reads in self._opened:
            await reads.close()
        await self._engine.dispose()


def _probe(settings: DatabaseSettings, application_name: str) -> Reads:
    """One connection, for questions to the server itself. It has a pulse of its own, which the other pools share."""
    return Reads(settings.model_copy(update={"pool_recycle_seconds": PROBE_IDLE_SECONDS}), application_name, 1)


@asynccontextmanager
async def open_database(settings: DatabaseSettings, application_name: str) -> AsyncIterator[Database]:
    """The pools of the process. They connect when a connection is needed first."""
    database = Database(settings, application_name)
    await database.open()
    try:
        async with database.replica.followed() if database.replica else nullcontext():
            yield database
    finally:
        await database.close()


def create_engine(
    settings: DatabaseSettings, application_name: str, pulse: Pulse, log: StatementLog | None = None
) -> AsyncEngine:
    """An engine with a pool of fixed size: overflow connections would be opened and closed all the time under load."""
    options = driver_arguments(settings, application_name)
    if settings.prepared_statements:
        options["prepared_statement_cache_size"] = PREPARED_STATEMENTS
    else:
        options |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=type("WatchedPool", (ChangesPool,), {"pulse": pulse}),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=settings.pool_timeout_seconds,
        pool_recycle=settings.pool_recycle_seconds,
        hide_parameters=True,  # they may be secrets, and SQLAlchemy quotes them in errors and at DEBUG
        connect_args=options,
    )
    listen(engine.sync_engine, log or StatementLog(settings), pulse)
    return engine
