"""A network that drops every packet to and from PostgreSQL, and closes nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.engine import make_url

from plinth.database import Database, open_database
from plinth.settings import Settings
from plinth.testing.wire import End, WirePostgres

HOUR = 3600.0
NOTICE = b"N"


class SilentWire(WirePostgres):
    silent = False
    before: str | None = None
    """Becomes silent when a client runs the next statement that has this in it."""
    answers: int | None = None
    """Becomes silent when the server has sent so many times."""
    delivers = False
    """Whether that message still reaches the server."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.dead: set[End] = set()
        """Clients whose connections were in use while it was silent. As behind a new address, these never recover."""
        self.dropped = 0

    def _received(self, server: End, data: bytes) -> bytes:
        if self.answers is not None:
            self.answers -= 1
            self.silent = self.answers < 0
            self.answers = None if self.silent else self.answers
        if self._is_dropped(server.peer):
            return b""
        server.stream += super()._received(server, data)
        # PostgreSQL sends a NOTICE at once. From here it goes on together with the answer that follows it.
        size = len(server.stream)
        if server.stream.startswith(NOTICE) and size <= (self.end_of_frame(server.stream) or size):
            return b""
        answer = bytes(server.stream)
        server.stream.clear()
        return answer

    def _sent(self, client: End, data: bytes) -> bytes:
        return b"" if self._is_dropped(client) else super()._sent(client, data)

    def _read(self, client: End, frame: bytes) -> bytes:
        known = len(self._count.statements)
        frame = super()._read(client, frame)
        if self.before is not None and any(self.before in each for each in self._count.statements[known:]):
            self.before, self.silent = None, True
            return frame if self.delivers else b""
        return frame

    def _is_dropped(self, client: End) -> bool:
        if self.silent:
            self.dead.add(client)
            self.dropped += 1
        return client in self.dead


@asynccontextmanager
async def opened(settings: Settings, **changed: Any) -> AsyncIterator[tuple[SilentWire, Database]]:
    """A statement has an hour: what ends it before is the pulse."""
    server = make_url(settings.database.url.get_secret_value())
    async with SilentWire(server.host or "", server.port or 5432) as wire:
        changed = {
            "url": wire.through(settings.database.url),
            "statement_timeout_seconds": HOUR,
            "pool_timeout_seconds": 1.0,
            "connect_timeout_seconds": 1.0,
        } | changed
        async with open_database(settings.database.model_copy(update=changed), "silent") as database:
            yield wire, database
