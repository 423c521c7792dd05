"""The databases of the settings: whether each answers, its clock, its connections, and the jobs in it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import asyncpg

from plinth.database import DatabaseSettings
from plinth.database.connections import pooled_connections, unpooled_connections
from plinth.database.engine import AVAILABLE_CONNECTIONS
from plinth.database.errors import DRIVER_ERRORS
from plinth.doctor.findings import Check, Finding, Level, one_line
from plinth.doctor.reaching import connect, version
from plinth.jobs.maintenance import NUMBERS, QueueNumbers
from plinth.settings import Settings

SKEW_WARNING_SECONDS, SKEW_ERROR_SECONDS = 2.0, 30.0
LONGEST_WAIT_SECONDS = 60.0
LOWERED = "WEB_CONCURRENCY", "JOB_PROCESSES", "DATABASE_POOL_SIZE", "DATABASE_READ_POOL_SIZE"
# Of this database: a worker has one connection of this name for each of its processes.
WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'worker'"


async def databases(settings: Settings, has_jobs: bool) -> AsyncIterator[Finding]:
    """Connect to each once, as the service does."""
    primary = settings.database
    found: dict[str, asyncpg.Connection] = {}
    async with AsyncExitStack() as stack:
        for variable, of_variable in _each(primary):
            reached = await connect(variable, of_variable)
            if isinstance(reached, Finding):
                yield reached
                continue
            stack.push_async_callback(reached.close, timeout=1)
            found[variable] = reached
            yield version(reached, variable)
        if (connection := found.get("DATABASE_URL")) is not None:
            yield await clock(connection)
            yield await connections(connection, settings, has_jobs)
        if (connection := found.get("DATABASE_REPLICA_URL")) is not None and not await connection.fetchval(
            "SELECT pg_is_in_recovery()"
        ):
            sentence = "DATABASE_REPLICA_URL: this server is no standby, so reads of it may lack what was written."
            mend = "Set it to a streaming replica of the server of DATABASE_URL, or leave it out."
            yield Finding("database", "warning", sentence, mend)
        direct = found.get("DATABASE_DIRECT_URL" if primary.direct_url else "DATABASE_URL")
        if has_jobs and direct is not None:
            for finding in await jobs(direct):
                yield finding


def _each(settings: DatabaseSettings) -> Iterator[tuple[str, DatabaseSettings]]:
    yield "DATABASE_URL", settings
    for variable, url in (
        ("DATABASE_DIRECT_URL", settings.direct_url),
        ("DATABASE_REPLICA_URL", settings.replica_url),
    ):
        if url:
            yield variable, settings.model_copy(update={"url": url})


async def clock(connection: asyncpg.Connection) -> Finding:
    """The server's clock and this host's, which differ by the time of the round trip at most if both are right."""
    before = datetime.now(UTC)
    there = await connection.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    ahead = (there - after).total_seconds() if there > after else min((there - before).total_seconds(), 0.0)
    if abs(ahead) <= SKEW_WARNING_SECONDS:
        return Finding("clock", "ok", "The clocks of this host and of PostgreSQL agree.")
    level: Level = "error" if abs(ahead) > SKEW_ERROR_SECONDS else "warning"
    direction = "ahead of" if ahead > 0 else "behind"
    sentence = f"PostgreSQL's clock is {abs(ahead):.1f} s {direction} this host's: tokens and leases expire wrongly."
    mend = "timedatectl set-ntp true, on the host whose clock is wrong (`date -u` on both shows which)."
    return Finding("clock", level, sentence, mend)


async def connections(connection: asyncpg.Connection, settings: Settings, has_jobs: bool) -> Finding:
    database = settings.database
    pooled = pooled_connections(database)
    wanted = settings.workers * (pooled + unpooled_connections(database))
    who = f"WEB_CONCURRENCY={settings.workers}"
    if has_jobs:
        wanted += settings.job.processes * (pooled + 1)  # the one for the queue
        who += f" and JOB_PROCESSES={settings.job.processes}"
    if database.address.pooled:
        return Finding("connections", "ok", f"{who} may open {wanted} connections, to a pooler.")
    sql, values = AVAILABLE_CONNECTIONS.bind({})
    available = await connection.fetchval(sql, *values)
    sentence = f"{who} may open {wanted} connections; PostgreSQL has {available} for them."
    if wanted <= available:
        return Finding("connections", "ok", sentence)
    mend = f"Lower {', '.join(LOWERED)}, or raise max_connections."
    return Finding("connections", "warning", sentence, mend)


async def jobs(connection: asyncpg.Connection) -> list[Finding]:
    sql, values = NUMBERS.bind({})
    try:
        queues = [QueueNumbers(*row) for row in await connection.fetch(sql, *values)]
        workers = await connection.fetchval(WORKERS)
    except asyncpg.UndefinedTableError:
        return []  # the migrations are missing, which is found by itself
    except DRIVER_ERRORS as error:
        return [_unreadable("jobs", error)]
    found = [finding for queue in queues for finding in _of_queue(queue, workers)]
    return found or [Finding("jobs", "ok", f"No job is dead or waits for long; worker processes: {workers}.")]


def _of_queue(queue: QueueNumbers, workers: int) -> Iterator[Finding]:
    if queue.dead:
        mend = f"app jobs list --state dead --queue {queue.queue}; then `app jobs show ID` and `app jobs retry ID`."
        yield Finding("jobs", "warning", f"The queue {queue.queue!r} has dead jobs: {queue.dead}.", mend)
    if (queue.oldest_seconds or 0) > LONGEST_WAIT_SECONDS:
        waiting = f"In the queue {queue.queue!r} jobs wait ({queue.ready}, the oldest for {queue.oldest_seconds:.0f} s)"
        if not workers:
            yield Finding("jobs", "error", f"{waiting}, and no worker runs.", "app worker")
        else:
            mend = "Raise JOB_CONCURRENCY or JOB_PROCESSES; see that JOB_QUEUES of a worker has the queue."
            yield Finding("jobs", "warning", f"{waiting}, though worker processes run ({workers}).", mend)


def _unreadable(check: Check, error: Exception) -> Finding:
    return Finding(check, "error", f"The table cannot be read ({one_line(error)}).", "Check the rights of the user.")
