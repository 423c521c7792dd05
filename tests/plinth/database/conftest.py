import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from plinth.database import Database, open_database
from plinth.database.engine import create_engine
from plinth.database.pulse import Pulse
from plinth.settings import Settings
from tests.plinth.database.tables import Base


@pytest.fixture(scope="session")
def settings(settings: Settings) -> Settings:
    """With a direct URL, where the other one leads through PgBouncer."""
    if not (direct := os.environ.get("TEST_DATABASE_DIRECT_URL")):
        return settings
    name = make_url(settings.database.url.get_secret_value()).database
    url = SecretStr(make_url(direct).set(database=name).render_as_string(hide_password=False))
    return settings.model_copy(update={"database": settings.database.model_copy(update={"direct_url": url})})


@pytest.fixture(scope="session")
async def tables(settings: Settings) -> None:
    engine = create_engine(settings.database, "tests", Pulse(partial(asyncio.sleep, 0), 1.0))
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
