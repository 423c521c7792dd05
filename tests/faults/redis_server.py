"""A Redis server that a test can kill, pause and restart."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from plinth.testing.locks import held
from plinth.testing.network import reserved_port
from plinth.testing.valkey import Valkey


async def wait_until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not (met if isinstance(met := condition(), bool) else await met):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


class RestartableServer:
    """A Valkey that restarts at the same address."""

    def __init__(self, valkey: Valkey, port: int) -> None:
        self._valkey = valkey
        self.url = valkey.start()
        self.port = port

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        self._valkey.process.stop()

    def start(self) -> None:
        assert self._valkey.start() == self.url

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(signal.SIGCONT)

    def client(self) -> Any:
        return Redis.from_url(self.url)

    async def save(self) -> None:
        """Write a snapshot, which later starts load."""
        async with self.client() as client:
            await client.save()

    def _send(self, number: signal.Signals) -> None:
        assert self._valkey.process.pid
        os.kill(self._valkey.process.pid, number)


@contextmanager
def restartable_server(directory: Path) -> Iterator[RestartableServer]:
    with held(directory), reserved_port() as port:
        valkey = Valkey(directory, durable=False, port=port)
        try:
            yield RestartableServer(valkey, port)
        finally:
            valkey.process.stop()
