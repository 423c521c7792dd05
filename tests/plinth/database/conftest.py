from collections.abc import AsyncIterator

import asyncpg
import pytest

from plinth.database import Database, open_database
from plinth.database.connections import Generation
from plinth.database.engine import create_engine
from plinth.settings import Settings
from tests.plinth.database.tables import Base


@pytest.fixture(scope="session")
async def tables(settings: Settings) -> None:
    engine = create_engine(settings.database, "tests", Generation())
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


@pytest.fixture
async def things(tables: None, onlooker: asyncpg.Connection) -> None:
    await onlooker.execute("TRUNCATE things, everything, accounts, events RESTART IDENTITY")


@pytest.fixture
async def database(settings: Settings, things: None) -> AsyncIterator[Database]:
    async with open_database(settings.database, "tests") as database:
        yield database
