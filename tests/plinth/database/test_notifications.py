"""What is watched is looked at again after each commit that notifies it, however often the connection is lost."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import insert

from plinth.database import Database, Session, open_database
from plinth.settings import Settings
from tests.plinth.database.tables import Thing

LISTENING = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'LISTEN%'"
WAITING = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
    " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
)
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"


@pytest.fixture
def name() -> str:
    """Of the connections of this test: those of the one before may be seen for another moment."""
    return f"watching {uuid4().hex}"


@pytest.fixture
async def database(settings: Settings, things: None, name: str) -> AsyncIterator[Database]:
    async with open_database(settings.database, name) as database:
        yield database


class Watcher:
    """Looks when it is woken: `await watcher.looked()` returns after the next look."""

    def __init__(self, database: Database, topic: str, seconds: float = 60.0) -> None:
        self._looks: asyncio.Queue[None] = asyncio.Queue()
        self.task = asyncio.create_task(self._watch(database, topic, seconds))

    async def _watch(self, database: Database, topic: str, seconds: float) -> None:
        async for _ in database.notifications.watch(topic, seconds):
            self._looks.put_nowait(None)

    async def looked(self) -> None:
        async with asyncio.timeout(30):
            await self._looks.get()

    @property
    def unseen(self) -> int:
        return self._looks.qsize()


async def watching(database: Database, topic: str) -> Watcher:
    watcher = Watcher(database, topic)
    await watcher.looked()  # at once
    await watcher.looked()  # when the connection is made
    return watcher


async def notify(database: Database, topic: str, fail: bool = False) -> None:
    async with database.sessions.begin() as session:
        await session.notify(topic)
        if fail:
            raise LookupError


async def test_a_commit_wakes_what_watches_its_topic(database: Database) -> None:
    orders = await watching(database, "orders")
    other = Watcher(database, "other")
    await other.looked()
    with pytest.raises(LookupError):
        await notify(database, "orders", fail=True)
    await notify(database, "nobody's")
    await notify(database, "orders")
    await orders.looked()
    await notify(database, "other")
    await other.looked()
    assert (orders.unseen, other.unseen) == (0, 0)


async def test_a_lost_connection_is_made_again_and_all_look_again(
    database: Database, onlooker: asyncpg.Connection, name: str
) -> None:
    watcher = await watching(database, "orders")
    before = await onlooker.fetchval(LISTENING, name)
    await onlooker.execute("SELECT pg_terminate_backend($1)", before)
    await notify(database, "orders")  # which may be lost
    await watcher.looked()
    async with asyncio.timeout(30):
        while True:
            if await onlooker.fetchval(LISTENING, name) not in {before, None}:
                break
            await asyncio.sleep(0.01)
    while watcher.unseen:
        await watcher.looked()
    await notify(database, "orders")
    await watcher.looked()


async def test_watching_ends_after_its_time_and_when_the_process_stops(database: Database) -> None:
    brief, other = Watcher(database, "orders", 0.05), Watcher(database, "orders")
    await other.looked()
    async with asyncio.timeout(30):
        await brief.task
        database.notifications.stop()
        await other.task
        late = Watcher(database, "orders")
        await late.task
    assert late.unseen == 0


async def test_any_number_that_waits_holds_one_connection_which_is_made_when_it_is_needed(
    settings: Settings, onlooker: asyncpg.Connection, name: str
) -> None:
    tasks = asyncio.all_tasks()
    async with open_database(settings.database, name) as database:
        assert await onlooker.fetchval(OPEN, name) == 0
        watchers = [Watcher(database, f"orders:{number}") for number in range(200)]
        for watcher in watchers:
            await watcher.looked()
            await watcher.looked()
        assert await onlooker.fetchval(OPEN, name) == 1
    await asyncio.gather(*(watcher.task for watcher in watchers))
    assert asyncio.all_tasks() == tasks


async def add(session: Session, label: str) -> int:
    await session.notify("orders")
    return (await session.execute(insert(Thing).values(label=label).returning(Thing.id))).scalar_one()


async def test_rows_of_one_topic_become_visible_in_the_order_of_their_ids(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    """Without turns, a reader that has seen the second would never look back for the first, which commits later."""

    async def second() -> int:
        async with database.sessions.begin() as session:
            return await add(session, "second")

    async with database.sessions.begin() as session:
        first = await add(session, "first")
        task = asyncio.create_task(second())
        async with asyncio.timeout(30):
            while not task.done():
                if await onlooker.fetchval(WAITING):
                    break
                await asyncio.sleep(0.01)
        assert not task.done(), "it did not wait"
    assert await task > first
