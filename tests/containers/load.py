"""A load generator: keep-alive connections, one request at a time on each, no retries."""

import asyncio
import re
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
PATIENCE_SECONDS = 10


class Load:
    def __init__(self, port: int, requests: list[bytes], connections: int) -> None:
        self.port = port
        self.requests = cycle(requests)
        self.connections = connections
        self.over = False
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._client())

    async def _client(self) -> None:
        while not self.over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self._tls)
            except OSError as error:
                self._fail(b"connect", error)
                continue
            try:
                await self._send_until_closed(reader, writer)
            finally:
                writer.transport.abort()

    async def _send_until_closed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.over:
            sent = next(self.requests)
            try:
                writer.write(sent)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = LENGTH.search(head)
                    await reader.readexactly(int(length[1]) if length else 0)
            except (OSError, EOFError, TimeoutError) as error:
                self._fail(sent, error)
                return
            self.answered += 1
            if not b"200" <= head[9:12] < b"300":
                self._fail(sent, head[9:12].decode())
            if CLOSES.search(head):
                return

    def _fail(self, sent: bytes, reason: object) -> None:
        self.failures[f"{sent.partition(b' ')[0].decode()}: {reason!r}"] += 1


@contextmanager
def under_load(port: int, requests: list[bytes], connections: int) -> Iterator[Load]:
    """Generate load in a thread for the length of the block."""
    load = Load(port, requests, connections)
    thread = threading.Thread(target=lambda: asyncio.run(load.run()))
    thread.start()
    try:
        yield load
    finally:
        load.over = True
        thread.join()
