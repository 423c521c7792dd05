"""The app on real servers (see plinth/testing/plugin.py), inside its lifespan."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from httpx import AsyncClient

from app.settings import Settings
from plinth.database import Database
from plinth.testing.client import Service, empty, serve
from plinth.testing.environment import forget_settings
from plinth.testing.wire import WirePostgres

forget_settings(Settings)  # before app.main is imported, which reads them

from app import tags
from app.enums import Role
from app.main import create_app
from app.models import Base
from tests.app.accounts import IDS, add_accounts, headers_of
from tests.app.resources import JOB, RESOURCES


@pytest.fixture(scope="session")
def settings(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        app={"env": "test"},
        database={"url": database_url, "pool_timeout_seconds": 10, "connect_timeout_seconds": 10},  # a busy machine
        redis={"url": redis_url, "timeout_seconds": 2},  # is no outage
        storage={"folder": tmp_path_factory.mktemp("uploads")},
        log={"level": "WARNING"},
        server={"shed": False},  # nor is it an overload
        limit=dict.fromkeys(("auth", "writes", "reads"), "1000000/minute"),  # more than any test sends
    )


@pytest.fixture(scope="session")
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with serve(create_app(settings)) as service:
        yield service


async def add_job(onlooker: asyncpg.Connection) -> None:
    """One job, which no worker takes."""
    await onlooker.execute("TRUNCATE plinth_jobs CASCADE")
    values = """($1, 'none', 'none', '{}', '{"requested_by": "user:3"}')"""
    await onlooker.execute(f"INSERT INTO plinth_jobs (id, name, queue, payload, context) VALUES {values}", JOB)


async def add_import(onlooker: asyncpg.Connection) -> None:
    """One import of no rows."""
    columns = "mode, skips_errors, state, rows, done, failed, errors"
    await onlooker.execute(f"INSERT INTO product_imports ({columns}) VALUES ('insert', false, 'done', 0, 0, 0, '[]')")


@pytest.fixture
async def empty_tables(onlooker: asyncpg.Connection) -> None:
    """No rows but those that are added here."""
    await empty(onlooker, Base.metadata)
    await add_accounts(onlooker)
    await add_import(onlooker)
    await add_job(onlooker)


@pytest.fixture
async def accounts(service: Service, empty_tables: None) -> None:
    """Nothing is cached of the accounts as another test has left them."""
    await service.state["cache"].invalidate(*(tags.USER(id) for id in IDS.values()))


@pytest.fixture
async def client(service: Service, settings: Settings, accounts: None) -> AsyncIterator[AsyncClient]:
    """A client of the app, whose tables are empty, that an administrator has signed in with."""
    async with service.client(headers_of(settings, Role.ADMIN)) as client:
        yield client


@pytest.fixture
async def anonymous(service: Service, accounts: None) -> AsyncIterator[AsyncClient]:
    """A client that nobody has signed in with."""
    async with service.client() as client:
        yield client


async def listening(database: Database) -> None:
    """Make the connection for notifications, which is made once in a process, so that no request is counted with it."""
    looks = 0
    async for _ in database.notifications.watch("none", seconds=30):
        looks += 1
        if looks == 2:  # the answer to LISTEN has arrived
            return
    pytest.fail("PostgreSQL has not answered LISTEN within 30 s.")


@pytest.fixture
async def wired(wire: WirePostgres, settings: Settings, accounts: None) -> AsyncIterator[AsyncClient]:
    """A client of an app whose every word with PostgreSQL crosses the wire, with one of each resource."""
    one_each = {"url": wire.through(settings.database.url), "pool_size": 1, "read_pool_size": 1}
    changed = {
        "database": settings.database.model_copy(update=one_each),
        "cache": settings.cache.model_copy(update={"responses": False}),  # or the second time would cost nothing
    }
    headers = headers_of(settings, Role.ADMIN)
    async with serve(create_app(settings.model_copy(update=changed))) as service, service.client(headers) as client:
        await RESOURCES.create_all(client)
        # In a context of its own, in which for a while all is read from the primary.
        await asyncio.create_task(listening(service.state["database"]))
        yield client
