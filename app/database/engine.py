"""One `Database` per process: a pool for transactions and a pool for reads, both of fixed size."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import asyncpg
import orjson
from sqlalchemy import ColumnElement, Integer, cast, event, func, literal, select
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from app.config import DatabaseSettings
from app.database.errors import DATABASE_AWAY, REFUSALS
from app.database.pool import ReadPool
from app.database.reads import DIALECT, Query, Reads
from app.database.replica import Replica, ReplicaReads
from app.database.transaction import ON_COMMIT
from app.exceptions import UnavailableError

log = logging.getLogger(__name__)

PREPARED_STATEMENTS = 500  # kept by each connection
UNPREPARED = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
PING = Query(int, select(literal(1)))


def _setting(name: str) -> ColumnElement[int]:
    return cast(func.current_setting(name), Integer)


AVAILABLE_CONNECTIONS = Query(
    int,
    select(_setting("max_connections") - _setting("superuser_reserved_connections") - _setting("reserved_connections")),
)


class Database:
    """`sessions` makes the sessions that `transaction()` commits; `reads` answers without one."""

    def __init__(self, settings: DatabaseSettings, application_name: str) -> None:
        self._engine = create_engine(settings, application_name)
        read_pool = create_read_pool(settings, application_name, settings.read_pool_size)
        # Probes have a connection of their own: that every other is busy is no reason to take no more requests.
        probe_pool = create_read_pool(settings, application_name, size=1)
        self._pools = [read_pool, probe_pool]
        self.pooled_connections = settings.pool_size + settings.max_overflow + settings.read_pool_size + 1
        self.sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self.reads = Reads(read_pool, settings)
        self._probes = Reads(probe_pool, settings)
        self.replica: Replica | None = None
        if settings.replica_url:
            there = settings.model_copy(update={"url": settings.replica_url})
            self._pools += [create_read_pool(there, application_name, size) for size in (settings.read_pool_size, 1)]
            self.replica = Replica(self._probes, Reads(self._pools[-1], there), settings.replica_lag_seconds)
            self.reads = ReplicaReads(read_pool, self._pools[-2], self.replica, settings)
            self.sessions.configure(info={ON_COMMIT: self.replica.wrote})

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
        await self._engine.dispose()
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


def create_engine(settings: DatabaseSettings, application_name: str) -> AsyncEngine:
    engine = create_async_engine(
        settings.url,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        pool_recycle=settings.pool_recycle_seconds,
        pool_use_lifo=True,  # idle connections at the far end stay idle, and recycle
        connect_args={
            **connection_options(settings, application_name),
            "async_creator_fn": connect,
            **({"prepared_statement_cache_size": PREPARED_STATEMENTS} if settings.prepared_statements else UNPREPARED),
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed_connection)
    event.listen(engine.sync_engine, "handle_error", _tell_silence)
    return engine


def create_read_pool(settings: DatabaseSettings, application_name: str, size: int) -> ReadPool:
    _, address = DIALECT.create_connect_args(make_url(settings.url))  # type: ignore[no-untyped-call]
    options = address | connection_options(settings, application_name)

    async def connect_for_reads() -> asyncpg.Connection:
        connection = await connect(**options)
        for name in ("json", "jsonb"):  # SQLAlchemy leaves these to the driver
            await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=orjson.loads)
        return connection

    return ReadPool(
        connect_for_reads,
        size,
        timeout_seconds=settings.pool_timeout_seconds,
        recycle_seconds=settings.pool_recycle_seconds,
    )


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


def _tell_silence(context: ExceptionContext) -> None:
    """A statement's own timeout; a TimeoutError of whatever else runs in a transaction is not the database's."""
    if isinstance(context.original_exception, TimeoutError):
        raise UnavailableError(DATABASE_AWAY) from context.original_exception


def _refuse_closed_connection(
    dbapi_connection: DBAPIConnection, _entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Notice a server that went away while its connection lay in the pool, without asking it (a ping is a round
    trip on every transaction). The pool answers DisconnectionError with a fresh connection."""
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError
