"""Real servers without Docker: an embedded PostgreSQL and Valkey on free loopback ports, in a directory of their own.

`DATABASE_URL` and `REDIS_URL` replace one each by an existing server.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from plinth.testing.locks import held
from plinth.testing.network import reserved_port
from plinth.testing.postgres import Postgres
from plinth.testing.process import Process
from plinth.testing.valkey import Valkey

POSTGRES_VERSION = 18


@dataclass(frozen=True)
class Servers:
    database_url: str
    redis_url: str
    processes: tuple[Process, ...]
    """Those that were started here."""


@contextmanager
def running(directory: Path, postgres_version: int = POSTGRES_VERSION, durable: bool = False) -> Iterator[Servers]:
    """Run servers for the length of the block. `durable` keeps data through crashes, at the cost of speed."""
    with held(directory), started(directory, postgres_version, durable, os.environ) as servers:
        yield servers


@contextmanager
def started(directory: Path, postgres_version: int, durable: bool, environ: Mapping[str, str]) -> Iterator[Servers]:
    """Like `running`, in a directory that is locked already."""
    ours: list[Process] = []
    with ExitStack() as stack:
        postgres = Postgres(directory, postgres_version, durable, stack.enter_context(reserved_port()))
        valkey = Valkey(directory, durable, stack.enter_context(reserved_port()))

        def url(variable: str, process: Process, start: Callable[[], str]) -> str:
            if given := environ.get(variable):
                return given
            stack.callback(process.stop)
            ours.append(process)
            return start()

        redis_url = url("REDIS_URL", valkey.process, valkey.start)
        database_url = url("DATABASE_URL", postgres.process, postgres.start)
        yield Servers(database_url, redis_url, tuple(ours))
