"""Caches on a Redis that can be killed and paused, and on a way to it that can be slow, silent and cut."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from plinth.cache import Cache, open_cache, open_redis
from plinth.cache.link import Link
from plinth.cache.settings import CacheSettings, RedisSettings
from plinth.cache.stores import RedisStore
from plinth.testing.wire import End, WireRedis
from tests.faults.valkey import Server, mortal_server, until

__all__ = ["Road", "Server", "link_of", "mortal_server", "opened", "until"]


@asynccontextmanager
async def opened(url: str, timeout_seconds: float = 0.1, **settings: Any) -> AsyncIterator[Cache]:
    """A cache as each process has one, which trusts Redis already."""
    way = RedisSettings(url=url, timeout_seconds=timeout_seconds)
    async with open_redis(way) as redis, open_cache(CacheSettings(**settings), redis, timeout_seconds) as cache:
        await until(lambda: link_of(cache).trusted)
        yield cache


def link_of(cache: Cache) -> Link:
    assert isinstance(cache._store, RedisStore)
    return cache._store._link


PONG = b"+PONG\r\n"


class Road(WireRedis):
    """The way of one cache to Redis. It can be slow, fall silent, lose what is on it, and be closed."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.closed = False
        self.silent = ""
        """"commands" or "all", as half-open connections are: what is sent either way is lost, and nothing is closed."""
        self.passing = -1
        """Answers, without those to beats, until the first that is held back; none is while it is negative."""
        self.holds_messages = False
        self.carried = 0
        self._listeners: set[End] = set()
        self.held_back: list[tuple[End, bytes]] = []
        self._lossy: set[End] = set()

    def cut(self, listeners: bool) -> None:
        for end in [end for end in self._open_ends if end.peer in self._open_ends]:
            if listeners or not self._listeners & {end, end.peer}:
                end.transport.abort()

    def lose_connections(self) -> None:
        """Without a word; new ones can be made."""
        self._lossy |= self._open_ends

    def mend(self) -> None:
        self.closed, self.silent, self.passing, self.holds_messages = False, "", -1, False
        for end in self._lossy:  # what it has lost cannot come back
            end.transport.abort()
        for client, data in self.held_back:
            if not client.transport.is_closing():
                client.transport.write(data)
        self.held_back.clear()
        self._lossy.clear()

    async def _relay(self, accepted: socket.socket) -> None:
        if self.closed:
            accepted.close()
        else:
            await super()._relay(accepted)

    def _sent(self, client: End, data: bytes) -> bytes:
        return b"" if self._loses(client) else super()._sent(client, data)

    def _read(self, client: End, frame: bytes) -> bytes:
        self.carried += 1
        if b"SUBSCRIBE" in frame:
            self._listeners.add(client)
        return super()._read(client, frame)

    def _received(self, server: End, data: bytes) -> bytes:
        if self._loses(server.peer):
            return b""
        self.carried += 1
        if server.peer in self._listeners:
            held_back = self.holds_messages
        else:
            held_back = self.passing == 0
            self.passing -= self.passing > 0 and data != PONG
        if held_back or any(client is server.peer for client, _ in self.held_back):
            self.held_back.append((server.peer, data))
            return b""
        return data

    def _loses(self, client: End) -> bool:
        commands = self.silent == "commands" and client not in self._listeners
        loses = self.silent == "all" or commands or client in self._lossy
        if loses:
            self.carried += 1
            self._lossy.add(client)
        return loses
