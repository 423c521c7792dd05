"""A pytest plugin: real servers, a database for each worker, and the event loop of production.

`pytest_plugins = ["plinth.testing.plugin"]` in the top conftest.py switches it on. One set of embedded servers serves
the whole run; each pytest-xdist worker has a migrated database and a Redis database of its own. `DATABASE_URL` and
`REDIS_URL` name servers to use instead, and `PG` the version of the embedded PostgreSQL.
"""

import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import pytest
from sqlalchemy.engine import make_url

from plinth.testing import queries
from plinth.testing.locks import SetupError
from plinth.testing.migrations import migrate
from plinth.testing.servers import POSTGRES_VERSION, running
from plinth.testing.wire import WirePostgres

NEVER_SECONDS = 86_400.0
_servers = ExitStack()
hypothesis.settings.register_profile("default", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # workers of pytest-xdist inherit the addresses
    directory = Path(_servers.enter_context(tempfile.TemporaryDirectory(prefix="plinth-test-")))
    version = int(os.environ.get("PG", POSTGRES_VERSION))
    try:
        servers = _servers.enter_context(running(directory, postgres_version=version))
    except SetupError as error:
        _servers.close()
        raise pytest.UsageError(str(error)) from None
    os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = servers.database_url, servers.redis_url


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep Python's garbage collector from what is imported and collected, all of which stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    _servers.close()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One uvloop for the whole run."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """`gw0`, `gw1`, … of pytest-xdist, or `main`."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "main"))


@pytest.fixture(scope="session")
def database_url(worker: str) -> Iterator[str]:
    """A migrated database for this worker only."""
    with _database(f"test_{worker}_{os.getpid()}") as url:
        migrate(url)
        yield url


@pytest.fixture
def empty_database_url(worker: str) -> Iterator[str]:
    """An empty database for this test only."""
    with _database(f"empty_{worker}_{os.getpid()}") as url:
        yield url


@contextmanager
def _database(name: str) -> Iterator[str]:
    """Create a database and yield its URL. It is dropped at the end."""
    server = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql")

    async def on_server(statement: str) -> None:
        connection = await asyncpg.connect(server.render_as_string(hide_password=False))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(on_server(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    asyncio.run(on_server(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def redis_url(worker: str) -> str:
    """One of Redis's numbered databases, for this worker only."""
    index = int(worker.removeprefix("gw")) if worker != "main" else 0
    return urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{index}").geturl()


@pytest.fixture(scope="session")
async def onlooker(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A second connection, which sees only committed rows."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def wire(database_url: str) -> AsyncIterator[WirePostgres]:
    """A proxy to PostgreSQL that counts round trips. Whether a statement is slow does not change what is counted."""
    server = make_url(database_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plinth.database.pulse.LOOK_SECONDS", NEVER_SECONDS)  # or its pings would be counted, too
        async with WirePostgres(server.host or "", server.port or 5432) as wire:
            yield wire


@pytest.fixture
def query_budget() -> queries.QueryBudget:
    """`with query_budget(3):` fails if the block runs more than three statements, and lists them."""
    return queries.query_budget
