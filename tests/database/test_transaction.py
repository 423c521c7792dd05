import asyncio

import asyncpg
import pytest
from sqlalchemy import delete, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.database import Database, after_commit, open_database, transaction
from app.exceptions import ConflictError, UnavailableError
from tests.database.tables import Thing


async def labels(onlooker: asyncpg.Connection) -> list[str]:
    return [row["label"] for row in await onlooker.fetch("SELECT label FROM things ORDER BY id")]


async def test_returning_commits(database: Database, onlooker: asyncpg.Connection) -> None:
    async with transaction(database.sessions) as session:
        session.add(Thing(label="kept"))
        await session.flush()
        assert await labels(onlooker) == []
    assert await labels(onlooker) == ["kept"]


async def test_raising_rolls_back(database: Database, onlooker: asyncpg.Connection) -> None:
    with pytest.raises(LookupError):
        async with transaction(database.sessions) as session:
            await session.execute(insert(Thing).values(label="lost"))
            raise LookupError
    assert await labels(onlooker) == []


async def test_a_commit_that_fails_raises_and_leaves_nothing(database: Database, onlooker: asyncpg.Connection) -> None:
    with pytest.raises(ConflictError, match="This late is already taken"):
        async with transaction(database.sessions) as session:
            await session.execute(insert(Thing), [{"label": "one", "late": 1}, {"label": "two", "late": 1}])
            assert await session.scalar(select(Thing.label).limit(1))  # the statement itself was accepted
    assert await labels(onlooker) == []


async def test_cancelling_rolls_back_and_returns_the_connection(
    settings: Settings, things: None, onlooker: asyncpg.Connection
) -> None:
    one_connection = settings.database.model_copy(update={"pool_size": 1})
    async with open_database(one_connection, "cancelled") as database:
        for delay in ("0", "30"):
            started = asyncio.Event()

            async def work(session_delay: str = delay, started: asyncio.Event = started) -> None:
                async with transaction(database.sessions) as session:
                    await session.execute(insert(Thing).values(label="lost"))
                    started.set()
                    await session.execute(text(f"SELECT pg_sleep({session_delay})"))
                    await asyncio.Event().wait()

            task = asyncio.create_task(work())
            await started.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            async with transaction(database.sessions) as session:  # the pool's only connection is back
                assert await session.scalar(text("SELECT 1")) == 1
    assert await labels(onlooker) == []


async def test_after_commit_sees_what_was_committed(database: Database, onlooker: asyncpg.Connection) -> None:
    seen: list[list[str]] = []

    async def look() -> None:
        seen.append(await labels(onlooker))

    async with transaction(database.sessions) as session:
        await session.execute(insert(Thing).values(label="kept"))
        after_commit(session, look)
        assert seen == []
    assert seen == [["kept"]]


async def test_after_commit_is_forgotten_on_rollback(database: Database) -> None:
    called = False

    async def call() -> None:
        nonlocal called
        called = True

    with pytest.raises(LookupError):
        async with transaction(database.sessions) as session:
            after_commit(session, call)
            raise LookupError
    assert not called


async def test_a_failure_after_the_commit_is_logged_and_stops_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    called = False

    async def fail() -> None:
        raise LookupError("cache away")

    async def call() -> None:
        nonlocal called
        called = True

    async with transaction(database.sessions) as session:
        after_commit(session, fail)
        after_commit(session, call)
    assert called
    assert "cache away" in caplog.text


async def write(database: Database, *statements: object) -> None:
    async with transaction(database.sessions) as session:
        for statement in statements:
            await session.execute(statement)  # type: ignore[call-overload]


async def test_a_duplicate_is_a_conflict_that_names_the_column(database: Database) -> None:
    duplicate = insert(Thing).values(label="same")
    with pytest.raises(ConflictError, match=r"^This label is already taken\.$"):
        await write(database, duplicate, duplicate)


async def test_a_reference_to_nothing_is_a_conflict_that_names_the_column(database: Database) -> None:
    with pytest.raises(ConflictError, match=r"^This parent_id refers to something that does not exist\.$"):
        await write(database, insert(Thing).values(label="orphan", parent_id=10**6))


async def test_deleting_what_is_referred_to_is_a_conflict(database: Database) -> None:
    await write(database, insert(Thing).values(label="parent"))
    await write(database, insert(Thing).values(label="child", parent_id=1))
    with pytest.raises(ConflictError, match="still refers to it"):
        await write(database, delete(Thing).where(Thing.id == 1))


async def test_a_serialization_failure_is_a_conflict(database: Database) -> None:
    await write(database, insert(Thing).values(label="fought over"))
    change = text("UPDATE things SET amount = amount + 1")
    with pytest.raises(ConflictError, match="at the same time"):
        async with transaction(database.sessions) as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            await session.scalar(select(Thing.amount))
            await write(database, change)
            await session.execute(change)


async def test_a_slow_statement_is_ended_and_told(settings: Settings, things: None) -> None:
    impatient = settings.database.model_copy(update={"statement_timeout_seconds": 0.05})
    async with open_database(impatient, "impatient") as database:
        with pytest.raises(UnavailableError, match="too long"):
            await write(database, text("SELECT pg_sleep(30)"))


async def test_a_silent_server_is_given_up(settings: Settings, things: None) -> None:
    impatient = settings.database.model_copy(update={"statement_timeout_seconds": 0.05})
    async with open_database(impatient, "impatient") as database:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await write(database, text("SET LOCAL statement_timeout = 0"), text("SELECT pg_sleep(30)"))


async def test_a_timeout_of_something_else_is_not_the_databases(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with transaction(database.sessions) as session:
            await session.execute(text("SELECT 1"))
            async with asyncio.timeout(0):
                await asyncio.Event().wait()


async def test_a_bug_in_a_statement_keeps_its_cause(database: Database) -> None:
    with pytest.raises(DBAPIError) as failed:
        await write(database, text("SELECT 1 / 0"))
    assert failed.value.__cause__ is not failed.value


async def test_a_full_pool_is_told(settings: Settings, things: None) -> None:
    narrow = settings.database.model_copy(update={"pool_size": 1, "pool_timeout_seconds": 0.05})
    async with open_database(narrow, "narrow") as database, transaction(database.sessions) as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(UnavailableError, match="busy"):
            await write(database, text("SELECT 1"))


async def test_an_unreachable_server_is_told(settings: Settings) -> None:
    nowhere = settings.database.model_copy(update={"url": "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"})
    async with open_database(nowhere, "nowhere") as database:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await write(database, text("SELECT 1"))


async def test_a_connection_that_died_in_the_pool_is_replaced(database: Database, onlooker: asyncpg.Connection) -> None:
    async def backend(session: AsyncSession) -> int:
        return int(await session.scalar(text("SELECT pg_backend_pid()")))

    async with transaction(database.sessions) as session:
        dead = await backend(session)
    await end_backend(onlooker, dead)
    async with transaction(database.sessions) as session:
        assert await backend(session) != dead


async def end_backend(onlooker: asyncpg.Connection, pid: int) -> None:
    """Kill a backend, and return once it is gone and our end has heard of it."""
    assert await onlooker.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await onlooker.fetchval("SELECT 1")


async def test_a_connection_lost_in_a_transaction_is_told(database: Database, onlooker: asyncpg.Connection) -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        async with transaction(database.sessions) as session:
            await session.execute(insert(Thing).values(label="lost"))
            await end_backend(onlooker, await session.scalar(text("SELECT pg_backend_pid()")))
            await session.execute(insert(Thing).values(label="lost too"))
    assert await labels(onlooker) == []
