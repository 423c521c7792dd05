"""One `Database` per process: SQLAlchemy's engine for transactions and asyncpg's pool for reads, both of fixed size."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from sqlalchemy import ColumnElement, Integer, cast, func, literal, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from plinth.database.connections import PREPARED_STATEMENTS, Generation, driver_arguments
from plinth.database.events import listen
from plinth.database.exports import Exports
from plinth.database.notifications import Notifications
from plinth.database.query import Query
from plinth.database.reads import Reads
from plinth.database.replica import Replica, ReplicaReads
from plinth.database.sessions import Sessions
from plinth.database.settings import DatabaseSettings
from plinth.errors import UnavailableError

log = logging.getLogger(__name__)

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
        generation = Generation()
        self._engine = create_engine(settings, application_name, generation)
        # Probes have a connection of their own: that all others are busy is no reason to receive no more requests.
        self._probes = Reads(settings, application_name, 1, generation)
        self.reads = Reads(settings, application_name, settings.read_pool_size, generation)
        self._opened = [self._probes, self.reads]
        self.exports = Exports(settings, application_name)
        self.pooled_connections = settings.pool_size + settings.read_pool_size + 1
        self.unpooled_connections = settings.exports + 1  # with that of the notifications
        self.replica: Replica | None = None
        if settings.replica_url:
            there = settings.model_copy(update={"url": settings.replica_url, "replica_url": None})
            probe = Reads(there, application_name, size=1)
            self.replica = Replica(self._probes, probe, settings.replica_lag_seconds)
            on_replica = Reads(there, application_name, settings.read_pool_size)
            self.reads = ReplicaReads(settings, application_name, on_replica, self.replica, generation)
            self._opened = [self._probes, self.reads, probe]
        self.notifications = Notifications(settings, application_name)
        self.sessions = Sessions(self._engine, self.replica.wrote if self.replica else None, self.reads.cursors)

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

    async def open(self) -> None:
        for reads in self._opened:
            await reads.open()

    async def close(self) -> None:
        await self.notifications.close()
        for reads in self._opened:
            await reads.close()
        await self._engine.dispose()


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


def create_engine(settings: DatabaseSettings, application_name: str, generation: Generation) -> AsyncEngine:
    """An engine with a pool of fixed size: overflow connections would be opened and closed all the time under load."""
    options = driver_arguments(settings, application_name)
    if settings.prepared_statements:
        options["prepared_statement_cache_size"] = PREPARED_STATEMENTS
    else:
        options |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=settings.pool_timeout_seconds,
        pool_recycle=settings.pool_recycle_seconds,
        hide_parameters=True,  # they may be secrets, and SQLAlchemy quotes them in errors and at DEBUG
        connect_args=options,
    )
    listen(engine.sync_engine, settings.slow_statement_seconds, generation)
    return engine
