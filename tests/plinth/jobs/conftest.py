"""Each test has a queue of its own, so that workers of other tests leave its jobs alone."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from plinth.database import Database, open_database
from plinth.settings import Settings
from tests.plinth.jobs.support import Queue


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings.database, "tests") as database:
        yield database


@pytest.fixture
async def queue(settings: Settings, database: Database, onlooker: asyncpg.Connection) -> Queue:
    return Queue(f"q{uuid4().hex}", settings.database, database, onlooker)
