import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import func, literal, select, text
from sqlalchemy.engine import make_url

from plinth.database import Database, Query, open_database
from plinth.database.connections import driver_arguments
from plinth.errors import UnavailableError
from plinth.settings import Settings
from plinth.testing.wire import WirePostgres

SHOW = "SELECT current_setting('application_name'), current_setting('jit'), current_setting('statement_timeout')"


async def test_every_connection_carries_the_name_and_the_limits(settings: Settings, things: None) -> None:
    limited = settings.database.model_copy(update={"statement_timeout_seconds": 7})
    expected = ("Named", "off", "7s")
    names = ("application_name", "jit", "statement_timeout")
    async with open_database(limited, "Named") as database, database.sessions.begin() as session:
        assert tuple((await session.execute(text(SHOW))).one()) == expected
        for name, value in zip(names, expected, strict=True):
            assert await database.reads.first(Query(str, select(func.current_setting(name)))) == value


async def test_a_burst_opens_no_more_connections_than_the_pools_have(settings: Settings, things: None) -> None:
    server = make_url(settings.database.url.get_secret_value())
    async with WirePostgres(server.host or "", server.port or 5432) as wire:
        sizes = {"pool_size": 2, "read_pool_size": 3, "url": wire.through(settings.database.url)}
        async with open_database(settings.database.model_copy(update=sizes), "burst") as database:
            query = Query(int, select(literal(1)))

            async def write() -> None:
                async with database.sessions.begin() as session:
                    await session.execute(text("SELECT 1"))

            with wire.counting() as count:
                await asyncio.gather(
                    *(write() for _ in range(30)), *(database.reads.first(query) for _ in range(30)), database.ping()
                )
            assert count.connections == database.pooled_connections == 6  # with the probes' own


async def test_exports_and_notifications_open_the_connections_that_are_counted_beside_the_pools(
    settings: Settings, onlooker: asyncpg.Connection
) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'beside'"
    async with open_database(settings.database, "beside") as database, AsyncExitStack() as stack:
        for _ in range(settings.database.exports):
            export = await stack.enter_async_context(database.exports.begin())
            await export.start(select(literal(1).label("one")), "ndjson", {})
        watching = [database.notifications.watch(topic, 60) for topic in ("one", "another")]
        for each in watching:
            await asyncio.ensure_future(anext(each))  # in a context of its own, which notes what its reads must see
        async with asyncio.timeout(10):
            while not await onlooker.fetchval(f"{query} AND query ILIKE 'listen %'"):
                pass
        # An export that takes long leads to a ping, on a connection of the pools.
        assert await onlooker.fetchval(f"{query} AND query <> 'SELECT 1'") == database.unpooled_connections
        with pytest.raises(UnavailableError):
            await stack.enter_async_context(database.exports.begin())


@pytest.mark.parametrize(("spare", "others"), [(0, 0), (-1, 0), (1, 1), (0, 1)])
async def test_more_connections_than_the_server_has_are_warned_of(
    database: Database, onlooker: asyncpg.Connection, caplog: pytest.LogCaptureFixture, spare: int, others: int
) -> None:
    available = await onlooker.fetchval(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        " - current_setting('reserved_connections')::int"
    )
    database.pooled_connections = available - spare
    await database.warn_of_too_many_connections(1, others)
    assert ("raise max_connections" in caplog.text) == (spare < others)


async def test_closing_closes_every_connection(settings: Settings, things: None, onlooker: asyncpg.Connection) -> None:
    async with open_database(settings.database, "closing") as database:
        await asyncio.gather(*(database.ping() for _ in range(5)))
    # A backend leaves this view a moment after its connection is closed.
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'"
    async with asyncio.timeout(10):
        while await onlooker.fetchval(query):
            pass


async def test_a_database_that_is_away_does_not_stop_the_start(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that is replaced during a failover has to come up."""
    nowhere = settings.database.model_copy(update={"url": SecretStr("postgresql://nobody@127.0.0.1:1/nothing")})
    async with open_database(nowhere, "nowhere") as database:
        await database.warn_of_too_many_connections(workers=1)
    assert "cannot be reached yet" in caplog.text


async def test_a_probe_needs_none_of_the_busy_connections(settings: Settings, things: None) -> None:
    narrow = {"pool_size": 1, "read_pool_size": 1, "pool_timeout_seconds": 1}
    async with open_database(settings.database.model_copy(update=narrow), "busy") as database:
        sleep = Query(str, select(func.pg_sleep(2)))
        reading = asyncio.create_task(database.reads.first(sleep))
        async with database.sessions.begin() as session:
            await session.execute(text("SELECT 1"))
            await database.ping()
        await reading


async def test_a_connection_takes_its_time_limit_from_the_settings(settings: Settings) -> None:
    options = driver_arguments(settings.database.model_copy(update={"connect_timeout_seconds": 3}), "numbers")
    assert options["timeout"] == 3
