"""A client that counts each request that fails, and never retries one."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

MOST_FAILURES = 10_000
LONGEST_SILENCE_SECONDS = 60  # so that a server that hangs fails the test


@dataclass
class Load:
    """`connections` clients that send the next request for `path` after each response, until `enough`."""

    host: str
    port: int
    path: str
    connections: int = 16
    answered: int = 0
    closed: int = 0
    """Connections that ended after a response with `Connection: close`."""
    failures: Counter[str] = field(default_factory=Counter)
    enough: bool = False

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.connections)))

    def wait_for_answers(self, more: int) -> None:
        """Block until `more` responses have arrived; for another thread than the load's."""
        until, last, seen_at = self.answered + more, self.answered, time.monotonic()
        while self.answered < until:
            assert sum(self.failures.values()) < MOST_FAILURES, self.failures
            if self.answered > last:
                last, seen_at = self.answered, time.monotonic()
            assert time.monotonic() - seen_at < LONGEST_SILENCE_SECONDS, "no response arrives any more"
            time.sleep(0.01)

    async def _client(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.enough:
            try:
                _, connection = await loop.create_connection(lambda: _Connection(self), self.host, self.port)
            except OSError as error:
                self.failures[f"connect: {error!r}"] += 1
                await asyncio.sleep(0.01)  # refused connections come at once
            else:
                await connection.ended


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load = load
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.request = f"GET {load.path} HTTP/1.1\r\nHost: {load.host}\r\n\r\n".encode()
        self.received = b""
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self.received, self.waiting = b"", True
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not end or len(body) < int(fields[b"content-length"]):
            return
        self.waiting = False
        if head.startswith(b"HTTP/1.1 200"):
            self.load.answered += 1
        else:
            self.load.failures[head.split(b"\r\n")[0].decode()] += 1
        if fields.get(b"connection") == b"close":
            self.load.closed += 1
            self.transport.close()
        elif self.load.enough:
            self.transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting:
            self.load.failures[f"lost: {error!r}, {len(self.received)} bytes"] += 1
        self.ended.set_result(None)
