"""One `Database` per process: a pool for transactions and a pool for reads, both of fixed size."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import asyncpg
import orjson
from sqlalchemy import ColumnElement, Integer, cast, func, literal, select
from sqlalchemy.engine import make_url

from plinth.database.pool import Pool, connect, connection_options
from plinth.database.reads import Reads
from plinth.database.replica import Replica, ReplicaReads
from plinth.database.sessions import SessionPool
from plinth.database.settings import DatabaseSettings
from plinth.database.statements import DIALECT, Query
from plinth.database.transaction import Transaction
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
    """`transaction()` is where something changes; `reads` answers without one."""

    def __init__(self, settings: DatabaseSettings, application_name: str) -> None:
        self._write_pool = SessionPool(settings, application_name)
        read_pool = create_read_pool(settings, application_name, settings.read_pool_size)
        # Probes have a connection of their own: that every other is busy is no reason to take no more requests.
        probe_pool = create_read_pool(settings, application_name, size=1)
        self._pools: list[Pool] = [self._write_pool, read_pool, probe_pool]
        self.pooled_connections = settings.pool_size + settings.read_pool_size + 1
        self.reads = Reads(read_pool, settings)
        self._probes = Reads(probe_pool, settings)
        self._slow_seconds = settings.slow_statement_seconds
        self.replica: Replica | None = None
        if settings.replica_url:
            there = settings.model_copy(update={"url": settings.replica_url})
            self._pools += [create_read_pool(there, application_name, size) for size in (settings.read_pool_size, 1)]
            self.replica = Replica(self._probes, Reads(self._pools[-1], there), settings.replica_lag_seconds)
            self.reads = ReplicaReads(read_pool, self._pools[-2], self.replica, settings)

    def transaction(self) -> Transaction:
        """To be entered: returning commits, raising rolls back."""
        return Transaction(self._write_pool, self._slow_seconds, self.replica.wrote if self.replica else None)

    async def warn_of_too_many_connections(self, workers: int) -> None:
        """Compare what the workers of this host may open with what the server lets ordinary users have."""
        wanted = workers * self.pooled_connections
        try:
            available = await self.reads.first(AVAILABLE_CONNECTIONS)
        except UnavailableError:
            # Not a reason to refuse to start: a worker that is replaced during a failover must come up.
            log.warning("PostgreSQL cannot be reached yet; /health/ready tells when it can")
            return
        if available is not None and wanted > available:
            log.warning(
                "%d workers may open %d connections but PostgreSQL has %d for them: lower WEB_CONCURRENCY, "
                "DATABASE_POOL_SIZE or DATABASE_READ_POOL_SIZE, or raise max_connections",
                workers,
                wanted,
                available,
            )

    async def ping(self) -> None:
        """Raises UnavailableError unless the database answers."""
        await self._probes.first(PING)

    async def close(self) -> None:
        for pool in self._pools:
            await pool.close()


@asynccontextmanager
async def open_database(settings: DatabaseSettings, application_name: str) -> AsyncIterator[Database]:
    database = Database(settings, application_name)
    try:
        async with database.replica.followed() if database.replica else nullcontext():
            yield database
    finally:
        await database.close()


def create_read_pool(settings: DatabaseSettings, application_name: str, size: int) -> Pool:
    _, address = DIALECT.create_connect_args(make_url(settings.url))  # type: ignore[no-untyped-call]
    options = address | connection_options(settings, application_name)

    async def connect_for_reads() -> asyncpg.Connection:
        connection = await connect(**options)
        for name in ("json", "jsonb"):  # SQLAlchemy leaves these to the driver
            await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=orjson.loads)
        return connection

    return Pool(
        connect_for_reads,
        size,
        timeout_seconds=settings.pool_timeout_seconds,
        recycle_seconds=settings.pool_recycle_seconds,
    )
