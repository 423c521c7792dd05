"""Real servers, the real app inside its lifespan, committed data in a database of our own.

One set of servers for the whole run, one database for each pytest-xdist worker, emptied before each test that asks for
the `client`. `DATABASE_URL` and `REDIS_URL` name servers to use instead of the embedded ones.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.engine import make_url
from starlette.types import Receive, Scope, Send

from tests.environment import ROOT, forget_settings

forget_settings()  # before the app is imported, which reads them

from app.config import Settings
from app.dependencies import State
from app.main import create_app
from app.models import Base
from tests.wire import WirePostgres
from tools.locks import SetupError
from tools.servers import running

_servers = ExitStack()
hypothesis.settings.register_profile("default", deadline=None)  # a machine may be busy
hypothesis.settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # a worker of pytest-xdist inherits the addresses
    directory = Path(_servers.enter_context(tempfile.TemporaryDirectory(prefix="plinth-test-")))
    try:
        servers = _servers.enter_context(running(directory, postgres_version=int(os.environ.get("PG", "18"))))
    except SetupError as error:
        _servers.close()
        raise pytest.UsageError(str(error)) from None
    os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = servers.database_url, servers.redis_url


def pytest_unconfigure(config: pytest.Config) -> None:
    _servers.close()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """`gw0`, `gw1`, … of pytest-xdist, or `main`."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "main"))


@pytest.fixture(scope="session")
def database_url(worker: str) -> Iterator[str]:
    """A database that is ours alone, migrated."""
    server = make_url(os.environ["DATABASE_URL"])
    name = f"plinth_test_{worker}_{os.getpid()}"

    async def on_server(statement: str) -> None:
        connection = await asyncpg.connect(server.set(drivername="postgresql").render_as_string(hide_password=False))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(on_server(f"CREATE DATABASE {name}"))
    migrate(server.set(drivername="postgresql+asyncpg", database=name).render_as_string(hide_password=False))
    yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    asyncio.run(on_server(f"DROP DATABASE {name} WITH (FORCE)"))


def migrate(url: str, revision: str = "head") -> None:
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, revision)


@pytest.fixture(scope="session")
def redis_url(worker: str) -> str:
    """One of Redis's databases that is ours alone."""
    index = int(worker.removeprefix("gw")) if worker != "main" else 0
    return urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{index}").geturl()


@pytest.fixture(scope="session")
def settings(database_url: str, redis_url: str) -> Settings:
    return Settings(
        _env_file=None,
        app={"env": "test"},
        database={"url": database_url},
        redis={"url": redis_url, "timeout_seconds": 2},  # a busy machine is no outage
        log={"level": "WARNING"},
    )


@dataclass
class Service:
    """The app inside its lifespan, and what that opened."""

    app: FastAPI
    state: State

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "state": dict(self.state)}, receive, send)  # httpx would not pass the state on

    def client(self) -> AsyncClient:
        return AsyncClient(transport=ASGITransport(self), base_url="http://test")


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Service]:
    app = create_app(settings)
    async with app.router.lifespan_context(app) as state:
        yield Service(app, cast(State, state))


@pytest.fixture(scope="session")
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with serve(settings) as service:
        yield service


@pytest.fixture(scope="session")
async def onlooker(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the app's: it sees what is committed, and nothing else."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def wire(settings: Settings) -> AsyncIterator[WirePostgres]:
    """Counts what crosses it on the way to PostgreSQL."""
    server = make_url(settings.database.url)
    async with WirePostgres(server.host or "", server.port or 5432) as wire:
        yield wire


@pytest.fixture
async def empty_tables(onlooker: asyncpg.Connection) -> None:
    # Many times faster than TRUNCATE where there are only a few rows.
    for table in reversed(Base.metadata.sorted_tables):
        await onlooker.execute(f"DELETE FROM {table.name}")
        await onlooker.execute(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 1, false)")


@pytest.fixture
async def client(service: Service, empty_tables: None) -> AsyncIterator[AsyncClient]:
    async with service.client() as client:
        yield client
