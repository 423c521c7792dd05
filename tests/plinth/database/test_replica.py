"""Reads on a replica that streams from the primary, and that is made to lag."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

import asyncpg
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import Integer, column, func, insert, select, text
from sqlalchemy.engine import URL, make_url

from app.main import create_app
from app.settings import Settings
from plinth.cache import CacheSettings, Tag, open_cache
from plinth.database import Database, Query, Reads, open_database
from plinth.database.settings import DatabaseSettings
from plinth.testing.client import serve
from plinth.testing.network import reserved_port
from plinth.testing.wire import WirePostgres
from tests.plinth.database.silent import HOUR, SilentWire
from tests.plinth.database.tables import Thing
from tests.plinth.standby import Standby

ON_REPLICA = Query(bool, select(func.pg_is_in_recovery()))
LABELS = Query(str, select(Thing.label).order_by(Thing.id))
SHORT, LONG = 0.3, 60.0


def secret(url: SecretStr | None) -> str:
    return url.get_secret_value() if url else ""


def shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
async def standby(settings: Settings, onlooker: asyncpg.Connection) -> AsyncIterator[Standby]:
    """A replica of the tests' server, with short intervals: it answers before a replica could find a commit."""
    server = make_url(settings.database.url.get_secret_value())
    await onlooker.execute(f"ALTER DATABASE {server.database} SET synchronous_commit = on")
    with tempfile.TemporaryDirectory(prefix="plinth-standby-") as directory, reserved_port() as port:
        primary = shown(server.set(drivername="postgresql"))
        standby = Standby(Path(directory), onlooker.get_server_version().major, port, primary)
        try:
            standby.start()
            yield standby
        finally:
            standby.process.stop()
            await standby.drop_slot(onlooker)


@pytest.fixture
async def followed(settings: Settings, standby: Standby, things: None) -> DatabaseSettings:
    there = shown(make_url(settings.database.url.get_secret_value()).set(host="127.0.0.1", port=standby.port))
    return settings.database.model_copy(update={"replica_url": SecretStr(there), "replica_lag_seconds": LONG})


@asynccontextmanager
async def paused(settings: DatabaseSettings) -> AsyncIterator[None]:
    """Pause replay: transactions committed inside the block do not reach the replica."""
    connection = await asyncpg.connect(shown(make_url(secret(settings.replica_url)).set(drivername="postgresql")))
    await connection.execute("SELECT pg_wal_replay_pause()")
    while await connection.fetchval("SELECT pg_get_wal_replay_pause_state()") != "paused":
        pass
    try:
        yield
    finally:
        await connection.execute("SELECT pg_wal_replay_resume()")
        await connection.close()


@asynccontextmanager
async def opened(settings: DatabaseSettings, **changes: object) -> AsyncIterator[Database]:
    async with open_database(settings.model_copy(update=changes), "tests") as database:
        await until_on_replica(database)
        yield database


async def until_on_replica(database: Database) -> None:
    async with asyncio.timeout(20):
        while not await database.reads.first(ON_REPLICA):  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.001)


async def write(database: Database, label: str) -> None:
    async with database.sessions.begin() as session:
        await session.execute(insert(Thing), [{"label": label}])


async def test_a_read_is_one_round_trip_to_the_replica_and_after_a_write_one_to_the_primary(
    followed: DatabaseSettings, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plinth.database.pulse.LOOK_SECONDS", HOUR)  # a ping would be counted, too
    server = make_url(secret(followed.url))
    async with (
        WirePostgres(server.host or "", server.port or 5432) as primary,
        WirePostgres("127.0.0.1", standby.port) as replica,
        opened(
            followed,
            url=primary.through(followed.url),
            replica_url=replica.through(SecretStr(secret(followed.replica_url))),
        ) as database,
    ):
        for label, here, there in (("one", replica, primary), ("two", primary, replica)):
            await database.reads.all(LABELS)  # prepares it
            with here.counting() as used, there.counting() as idle:
                await database.reads.all(LABELS)
            assert (used.round_trips, idle.round_trips) == (1, 0)
            await write(database, label)


async def test_the_pool_of_the_replica_is_reported(followed: DatabaseSettings) -> None:
    def numbers(pool: str) -> list[float]:
        database.sample()
        names = ("size", "used", "waiting")
        return [REGISTRY.get_sample_value(f"database_pool_{name}", {"pool": pool}) or 0 for name in names]

    async with opened(followed, read_pool_size=2) as database:
        reads = [asyncio.create_task(database.reads.all(LABELS)) for _ in range(3)]
        await asyncio.sleep(0)
        assert numbers("replica") == [2, 2, 1]
        assert numbers("reads") == [2, 0, 0]
        await asyncio.gather(*reads)
        assert numbers("replica") == [2, 0, 0]


async def test_a_write_is_seen_however_late_the_replica_is(
    followed: DatabaseSettings, onlooker: asyncpg.Connection
) -> None:
    async with opened(followed, replica_lag_seconds=SHORT) as database:
        async with paused(followed), asyncio.timeout(20):
            await write(database, "one")
            wrote_at = time()
            while time() < wrote_at + 4 * SHORT:
                assert await database.reads.all(LABELS) == ["one"]
        await until_on_replica(database)
        async with paused(followed), asyncio.timeout(20):
            await onlooker.execute("INSERT INTO things (label) VALUES ('two')")  # by another service
            while await database.reads.all(LABELS) != ["one", "two"]:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.001)


async def test_the_primary_serves_what_a_lagging_replica_lacks(
    followed: DatabaseSettings, onlooker: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(followed) as database, paused(followed):
        await onlooker.execute("CREATE TABLE brand_new AS SELECT 1 AS one")
        try:
            assert (
                await database.reads.first(Query(int, select(column("one", Integer)).select_from(text("brand_new"))))
                == 1
            )
        finally:
            await onlooker.execute("DROP TABLE brand_new")
        assert await database.reads.first(ON_REPLICA)
        assert "plinth.database.replica" not in {record.name for record in caplog.records}


async def test_the_cache_is_not_filled_from_a_late_replica(followed: DatabaseSettings) -> None:
    """But from one that has all that the key's own names ask for, while other writes go on."""

    async def load() -> tuple[bool, list[str]]:
        return bool(await database.reads.first(ON_REPLICA)), await database.reads.all(LABELS)

    async def remember() -> tuple[bool, list[str]]:  # it is kept no longer than we wait for it
        return await cache.remember("labels", 0, load, schema=tuple[bool, list[str]], tags=[Tag("things")])

    async with (
        opened(followed, replica_lag_seconds=SHORT) as database,
        open_cache(CacheSettings(), None, 0.1) as cache,
    ):
        async with asyncio.timeout(20):
            is_from_replica = False
            while not is_from_replica:
                async with database.sessions.begin() as session:
                    await session.execute(text("SELECT 1"))
                assert not await database.reads.first(ON_REPLICA)
                is_from_replica, _ = await remember()
        async with paused(followed):
            await write(database, "one")
            await cache.invalidate(Tag("things"))
            wrote_at = time()
            while time() < wrote_at + 4 * SHORT:
                assert await remember() == (False, ["one"])


async def test_reads_outlive_the_replica_and_return_to_it(
    followed: DatabaseSettings, standby: Standby, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plinth.database.replica")

    def levels() -> list[str]:  # not of the statements that are slow on a busy machine
        return [record.levelname for record in caplog.records if record.name == "plinth.database.replica"]

    async with opened(followed, replica_lag_seconds=2.0) as database:
        caplog.clear()  # it may have lagged at first
        standby.process.stop()
        try:
            assert await asyncio.gather(*(database.reads.first(ON_REPLICA) for _ in range(50))) == [False] * 50
            assert levels() == ["WARNING"]
        finally:
            standby.start()
        await until_on_replica(database)
        assert levels() == ["WARNING", "INFO"]


async def test_a_write_of_another_process_sends_reads_to_the_primary(
    followed: DatabaseSettings, settings: Settings
) -> None:
    changed = settings.model_copy(update={"database": followed.model_copy(update={"replica_lag_seconds": SHORT})})
    async with serve(create_app(changed)) as ours, serve(create_app(settings)) as other:
        database = ours.state["database"]
        await until_on_replica(database)
        assert database.replica
        wrote_at = time()
        await other.state["cache"].invalidate(Tag("things"))
        async with asyncio.timeout(20):
            while database.replica.heard_at() < wrote_at:  # noqa: ASYNC110 - it has no event, and needs none
                await asyncio.sleep(0)
        assert not await database.reads.first(ON_REPLICA)
        assert type(other.state["database"].reads) is Reads
        assert other.state["database"].replica is None


async def test_while_the_replica_is_silent_reads_go_to_the_primary(
    followed: DatabaseSettings, standby: Standby
) -> None:
    """The first of them after the verdict, and the others at once."""
    async with SilentWire("127.0.0.1", standby.port) as wire:
        there = wire.through(SecretStr(secret(followed.replica_url)))
        changed = {"replica_url": there, "statement_timeout_seconds": HOUR, "connect_timeout_seconds": 1.0}
        async with asyncio.timeout(60), opened(followed, **changed) as database:
            wire.silent = True
            assert await database.reads.all(ON_REPLICA) == [False]
            assert await asyncio.gather(*(database.reads.first(ON_REPLICA) for _ in range(50))) == [False] * 50
            wire.silent = False
            await until_on_replica(database)
