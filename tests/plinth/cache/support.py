"""Caches whose connections to Redis a test can break."""

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from plinth.cache import Cache, CacheSettings, RedisSettings, open_cache, open_redis
from plinth.cache.bus import InvalidationBus
from plinth.cache.stores import SharedStore
from plinth.testing.wire import End, WireRedis
from tests.faults.redis_server import wait_until

PONG = b"+PONG\r\n"
_RUN_ID = re.compile(rb"run_id:[0-9a-f]{40}")


@asynccontextmanager
async def trusting_cache(url: str, timeout_seconds: float = 0.1, **settings: Any) -> AsyncIterator[Cache]:
    """The cache of one process, once it trusts Redis."""
    redis_settings = RedisSettings(url=url, timeout_seconds=timeout_seconds)
    async with (
        open_redis(redis_settings) as redis,
        open_cache(CacheSettings(**{"namespace": "test", **settings}), redis, timeout_seconds) as cache,
    ):
        await wait_until(lambda: bus_of(cache).trusted)
        yield cache


def bus_of(cache: Cache) -> InvalidationBus:
    assert isinstance(cache._store, SharedStore)
    return cache._store._bus


class FaultyWire(WireRedis):
    """A proxy between one cache and Redis that delays, drops, cuts and refuses on demand."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.refuses = False
        """New connections are closed."""
        self.drops: Literal["", "commands", "all"] = ""
        """What is lost in both directions without closing the connection, as on one that is half open."""
        self.replies_to_pass = -1
        """How many replies, heartbeats apart, pass before the following are held back; negative for all."""
        self.holds_messages = False
        self.run_id = b""
        """What takes the place of that of the server."""
        self.packets = 0
        """How many have arrived from clients."""
        self.activity = 0
        """Counts what arrives from either side."""
        self.held: list[tuple[End, bytes]] = []
        self._subscribers: set[End] = set()
        self._half_open: set[End] = set()

    def cut(self, subscribers: bool) -> None:
        """Close the connections for commands, and with `subscribers` those for messages."""
        for end in [end for end in self._open_ends if end.peer in self._open_ends]:
            if subscribers or not self._subscribers & {end, end.peer}:
                end.transport.abort()

    def make_half_open(self) -> None:
        """Drop everything on the present connections, without closing them. New connections work."""
        self._half_open |= self._open_ends

    def pause_clients(self) -> None:
        """Read nothing more from the clients, whose buffers fill up."""
        for end in self._open_ends:
            end.transport.pause_reading()

    def resume_clients(self) -> None:
        for end in self._open_ends:
            end.transport.resume_reading()

    def restore(self) -> None:
        self.refuses, self.drops, self.replies_to_pass, self.holds_messages = False, "", -1, False
        for end in self._half_open:  # what it has dropped cannot be delivered
            end.transport.abort()
        for client, data in self.held:
            if not client.transport.is_closing():
                client.transport.write(data)
        self.held.clear()
        self._half_open.clear()

    async def _relay(self, accepted: socket.socket) -> None:
        if self.refuses:
            accepted.close()
        else:
            await super()._relay(accepted)

    def _sent(self, client: End, data: bytes) -> bytes:
        self.packets += 1
        return b"" if self._dropped(client) else super()._sent(client, data)

    def _read(self, client: End, frame: bytes) -> bytes:
        self.activity += 1
        if b"SUBSCRIBE" in frame:
            self._subscribers.add(client)
        return super()._read(client, frame)

    def _received(self, server: End, data: bytes) -> bytes:
        if self._dropped(server.peer):
            return b""
        self.activity += 1
        if self.run_id:
            data = _RUN_ID.sub(b"run_id:" + self.run_id, data)
        if server.peer in self._subscribers:
            holds = self.holds_messages
        else:
            holds = self.replies_to_pass == 0
            self.replies_to_pass -= self.replies_to_pass > 0 and data != PONG
        if holds or any(client is server.peer for client, _ in self.held):
            self.held.append((server.peer, data))
            return b""
        return data

    def _dropped(self, client: End) -> bool:
        commands = self.drops == "commands" and client not in self._subscribers
        dropped = self.drops == "all" or commands or client in self._half_open
        if dropped:
            self.activity += 1
            self._half_open.add(client)
        return dropped
