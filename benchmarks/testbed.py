"""PostgreSQL and Valkey in a temporary folder, migrated and filled, and the servers that are measured on them."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from app.settings import AppSettings
from benchmarks.processes import OTHER_CORES, SERVER_CORES, cpu_seconds, pinned
from benchmarks.servers import Server, launch, plain_environment
from plinth.security import AuthSettings, Tokens
from plinth.testing.locks import SetupError, held
from plinth.testing.network import reserved_port
from plinth.testing.process import Process
from plinth.testing.servers import POSTGRES_VERSION, Servers, started

APP = (sys.executable, "-m", "app")
UVICORN = ("-m", "uvicorn", "--loop=uvloop", "--http=httptools", "--no-access-log", "--no-server-header")
USUAL = "usual template"
ACCESS_SECONDS = 86_400  # no measurement takes longer
PRODUCTION = {
    "APP_ENV": "production",
    "APP_SECRET_KEY": "for-measuring-on-loopback-and-nothing-else",
    "DATABASE_ALLOW_PLAINTEXT": "true",
    "HTTP_ALLOWED_HOSTS": "*",
    "WEB_CONCURRENCY": "1",
    "CACHE_RESPONSES": "false",  # every response is produced, none comes from the cache
    # Requests are counted, as in production, and none is refused: all come from one address.
    "LIMIT_AUTH": "1000000000/minute",
    "LIMIT_READS": "1000000000/minute",
    "LIMIT_WRITES": "1000000000/minute",
}


@dataclass(frozen=True)
class Testbed:
    directory: Path
    servers: Servers
    products: int
    authorization: str
    """The header of requests of the example editor."""
    _started: list[Process] = field(default_factory=list, repr=False)
    _ports: ExitStack = field(default_factory=ExitStack, repr=False)

    def app(self, name: str = "app", cores: Set[int] = SERVER_CORES, **env: str) -> Server:
        """The app with its defaults: `app serve`, all middleware, the access log. Waits until it answers."""
        server = self.launch_app(name, env, cores)
        server.wait_until_ready()
        return server

    def launch_app(self, name: str, env: Mapping[str, str], cores: Set[int] = SERVER_CORES) -> Server:
        """As `app`, without waiting."""
        return self._launch(name, [*APP, "serve"], {**self._app_environment(), **env}, cores)

    def start_app(self, name: str, argv: Sequence[str], **env: str) -> Server:
        """The app served by another command. Waits until it answers."""
        return self.start(name, argv, **{**self._app_environment(), **env})

    def secured_app(self, name: str = "secured app") -> Server:
        """The app with the endpoints of benchmarks/secured.py, on Uvicorn as the floors. Waits until it answers."""
        argv = [sys.executable, *UVICORN, "--factory", "benchmarks.secured:create_secured_app"]
        return self.start_app(name, argv)

    def floors(self) -> dict[str, Server]:
        """By letter. A and B are different paths of one process."""
        bare = self._asgi("floor B", "benchmarks.floors.bare:app")
        typed = self._asgi("floor C", "benchmarks.floors.typed:app")
        return {"A": replace(bare, name="floor A"), "B": bare, "C": typed}

    def usual_template(self) -> Server:
        """The app of benchmarks/frameworks/usual, on Uvicorn as the floors. Waits until it answers."""
        return self._asgi(USUAL, "benchmarks.frameworks.usual.main:app")

    def _asgi(self, name: str, application: str) -> Server:
        return self.start(name, [sys.executable, *UVICORN, application])

    def start(self, name: str, argv: Sequence[str], **env: str) -> Server:
        """Any server that reads `HOST`, `PORT` and `DATABASE_URL`. Waits until it answers."""
        server = self._launch(name, argv, {"DATABASE_URL": self.servers.database_url, **env}, SERVER_CORES)
        server.wait_until_ready()
        return server

    def _app_environment(self) -> dict[str, str]:
        return {"DATABASE_URL": self.servers.database_url, "REDIS_URL": self.servers.redis_url, **PRODUCTION}

    def _launch(self, name: str, argv: Sequence[str], env: Mapping[str, str], cores: Set[int]) -> Server:
        port = self._ports.enter_context(reserved_port())
        log = self.directory / f"{name.replace(' ', '-')}.log"
        authorization = self.authorization if "APP_SECRET_KEY" in env else ""
        server = launch(name, argv, env, log=log, port=port, cores=cores, authorization=authorization)
        self._started.append(server.process)
        return server

    @contextmanager
    def scope(self) -> Iterator["Testbed"]:
        """The same testbed, which stops the servers that are started on it when the block ends."""
        scope = replace(self, _started=[], _ports=ExitStack())
        try:
            yield scope
        finally:
            scope.stop()

    def stop(self) -> None:
        """Stop all servers that were started on it, at the same time: each takes a while to leave gracefully."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(Process.stop, self._started))
        self._ports.close()

    def create_database(self, name: str, products: int) -> str:
        """Create and fill another database on the same PostgreSQL; returns its URL."""
        self.execute(f"CREATE DATABASE {name}")
        url = urlunsplit(urlsplit(self.servers.database_url)._replace(path=f"/{name}"))
        fill(url, products)
        return url

    def execute(self, *statements: str) -> object:
        """Run statements on the database; returns the first value of the last one."""
        return asyncio.run(_execute(self.servers.database_url, statements))

    def postgres_cpu_seconds(self) -> float:
        return sum(cpu_seconds(each.pid or 0) for each in self.servers.processes if each.name == "PostgreSQL")


@contextmanager
def testbed(products: int) -> Iterator[Testbed]:
    """A testbed for the length of the block. PostgreSQL is durable, as in production."""
    with (
        TemporaryDirectory(prefix="plinth-bench-") as folder,
        chdir(folder),  # no .env is found here
        pinned(OTHER_CORES),
        held(Path(folder)),
        started(Path(folder), POSTGRES_VERSION, True, {}) as servers,
    ):
        fill(servers.database_url, products)
        authorization = f"Bearer {asyncio.run(_access_token(servers.database_url))}"
        with Testbed(Path(folder), servers, products, authorization).scope() as bed:
            yield bed


def fill(database_url: str, products: int) -> None:
    """Migrate the database and load that many example products. Raises SetupError."""
    env = plain_environment() | {"DATABASE_URL": database_url, "APP_EXAMPLE_DATA": "true"}
    env["DATABASE_STATEMENT_TIMEOUT_SECONDS"] = "3600"  # loading a million products exceeds the limit of a request
    for command in (["migrate"], ["seed", "--products", str(products)]):
        done = subprocess.run([*APP, *command], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(f"`app {command[0]}` failed: {done.stderr or done.stdout}")
    asyncio.run(_execute(database_url, ["VACUUM ANALYZE", "CHECKPOINT"]))


async def _access_token(url: str) -> str:
    """Begin a session of the example editor."""
    secret = SecretStr(PRODUCTION["APP_SECRET_KEY"])
    tokens = Tokens(AuthSettings(access_seconds=ACCESS_SECONDS), secret, AppSettings().identifier)
    connection = await asyncpg.connect(url)
    try:
        user_id = await connection.fetchval("SELECT id FROM users WHERE email = 'editor@example.com'")
        login_id = await connection.fetchval(
            "INSERT INTO logins (id, user_id, user_agent, expires_at)"
            " VALUES (gen_random_uuid(), $1, 'benchmarks', now() + interval '1 day') RETURNING id",
            user_id,
        )
    finally:
        await connection.close()
    return tokens.issue(str(user_id), str(login_id), ())


async def _execute(url: str, statements: Sequence[str]) -> object:
    connection = await asyncpg.connect(url)
    try:
        value = None
        for statement in statements:
            value = await connection.fetchval(statement)
        return value
    finally:
        await connection.close()
