"""What the servers stand on: PostgreSQL and Valkey of their own, migrated and filled, in a temporary folder."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.processes import OTHER_CORES, SERVER_CORES, cpu_seconds, pinned
from benchmarks.servers import Server, launch, plain_environment
from plinth.testing.locks import SetupError, held
from plinth.testing.servers import POSTGRES_VERSION, Servers, started

APP = (sys.executable, "-m", "app")
UVICORN = ("-m", "uvicorn", "--loop=uvloop", "--http=httptools", "--no-access-log", "--no-server-header")
PRODUCTION = {
    "APP_ENV": "production",
    "APP_SECRET_KEY": "for-measuring-on-loopback-and-nothing-else",
    "DATABASE_ALLOW_PLAINTEXT": "true",
    "WEB_CONCURRENCY": "1",
    "CACHE_RESPONSES": "false",  # what it costs to make an answer, not to repeat it
}


@dataclass(frozen=True)
class Ground:
    directory: Path
    servers: Servers
    products: int
    _stack: ExitStack = field(repr=False)

    def app(self, name: str = "app", cores: Set[int] = SERVER_CORES, **env: str) -> Server:
        """Plinth as it ships: `app serve`, its defaults, all its middleware, its access log."""
        server = self.launch_app(name, env, cores)
        server.wait_until_ready()
        return server

    def launch_app(self, name: str, env: Mapping[str, str], cores: Set[int] = SERVER_CORES) -> Server:
        """The same, without waiting."""
        own = {"DATABASE_URL": self.servers.database_url, "REDIS_URL": self.servers.redis_url, **PRODUCTION, **env}
        return self._launch(name, [*APP, "serve"], own, cores)

    def floors(self) -> dict[str, Server]:
        """By their letters. A and B are one process, on different paths."""
        bare, typed = self._floor("floor B", "bare"), self._floor("floor C", "typed")
        return {"A": replace(bare, name="floor A"), "B": bare, "C": typed}

    def _floor(self, name: str, module: str) -> Server:
        return self.start(name, [sys.executable, *UVICORN, f"benchmarks.floors.{module}:app"])

    def start(self, name: str, argv: Sequence[str], **env: str) -> Server:
        """Any server, which is told `HOST`, `PORT` and `DATABASE_URL`."""
        server = self._launch(name, argv, {"DATABASE_URL": self.servers.database_url, **env}, SERVER_CORES)
        server.wait_until_ready()
        return server

    def _launch(self, name: str, argv: Sequence[str], env: Mapping[str, str], cores: Set[int]) -> Server:
        server = launch(name, argv, env, self.directory / f"{name.replace(' ', '-')}.log", cores)
        self._stack.callback(server.process.stop)
        return server

    @contextmanager
    def anew(self) -> Iterator["Ground"]:
        """The same, but the servers that are started on it stop where the block ends."""
        with ExitStack() as stack:
            yield replace(self, _stack=stack)

    def database(self, name: str, products: int) -> str:
        """The URL of another database on the same PostgreSQL, filled."""
        self.ask(f"CREATE DATABASE {name}")
        url = urlunsplit(urlsplit(self.servers.database_url)._replace(path=f"/{name}"))
        fill(url, products)
        return url

    def ask(self, *statements: str) -> object:
        """Run statements on the database; the first value of the last one."""
        return asyncio.run(_ask(self.servers.database_url, statements))

    def postgres_cpu_seconds(self) -> float:
        return sum(cpu_seconds(each.pid or 0) for each in self.servers.processes if each.name == "PostgreSQL")


@contextmanager
def ground(products: int) -> Iterator[Ground]:
    """Until the block ends. PostgreSQL is durable, as in production."""
    with (
        TemporaryDirectory(prefix="plinth-bench-") as folder,
        chdir(folder),  # where there is no .env
        pinned(OTHER_CORES),
        held(Path(folder)),
        started(Path(folder), POSTGRES_VERSION, True, {}) as servers,
        ExitStack() as stack,
    ):
        fill(servers.database_url, products)
        yield Ground(Path(folder), servers, products, stack)


def fill(database_url: str, products: int) -> None:
    env = plain_environment() | {"DATABASE_URL": database_url, "APP_EXAMPLE_DATA": "true"}
    env["DATABASE_STATEMENT_TIMEOUT_SECONDS"] = "3600"  # a million products take longer than a request may
    for command in (["migrate"], ["seed", "--products", str(products)]):
        done = subprocess.run([*APP, *command], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(f"`app {command[0]}` failed: {done.stderr or done.stdout}")
    asyncio.run(_ask(database_url, ["VACUUM ANALYZE", "CHECKPOINT"]))


async def _ask(url: str, statements: Sequence[str]) -> object:
    connection = await asyncpg.connect(url)
    try:
        value = None
        for statement in statements:
            value = await connection.fetchval(statement)
        return value
    finally:
        await connection.close()
