"""A TCP proxy that stands between a service and one of its servers, and misbehaves as networks do.

It runs in a thread of its own. Its methods may be called from any other thread, and return once they are in effect.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Self, TypeVar

from plinth.testing.network import LOOPBACK, reserved_port
from tests.faults.relay import End

T = TypeVar("T")
LIMIT_SECONDS = 30


class Proxy:
    """Relays each connection to its own `port` to the server at `port_of_server` on this host."""

    def __init__(self, port_of_server: int) -> None:
        self._port_of_server = port_of_server
        self.ends: set[End] = set()
        self.latency_seconds = 0.0  # of what the server sends
        self.bytes_per_second = 0.0  # of what the server sends, over each connection; 0 is no limit
        self.is_silent = False
        self.cuts = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._reserved = reserved_port()

    @property
    def is_faithful(self) -> bool:
        return not (self.is_silent or self.latency_seconds or self.bytes_per_second or self.cuts)

    def __enter__(self) -> Self:
        self.port = self._reserved.__enter__()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._run(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop_listening)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_SECONDS)
        self._reserved.__exit__(None, None, None)

    def _serve(self) -> None:
        self.loop.run_forever()
        self.loop.run_until_complete(self._closed())
        self.loop.close()

    def slow(self, seconds: float) -> AbstractContextManager[None]:
        """Each answer of the server is late by this."""
        return self._with("latency_seconds", seconds)

    def narrow(self, bytes_per_second: float) -> AbstractContextManager[None]:
        """Limit the bandwidth of each connection."""
        return self._with("bytes_per_second", bytes_per_second)

    def blackhole(self) -> AbstractContextManager[None]:
        """Nothing passes in either direction, the end of a connection neither. It all arrives afterwards."""
        return self._with("is_silent", True)

    @contextmanager
    def _with(self, name: str, value: float) -> Iterator[None]:
        usual = getattr(self, name)
        self._set(name, value)
        yield
        self._set(name, usual)

    @contextmanager
    def refuse(self) -> Iterator[None]:
        """End all connections and accept no other."""
        self._run(self._stop_listening)
        self.reset()
        yield
        self._run(self._listen)

    @contextmanager
    def half_open(self) -> Iterator[None]:
        """The connections that there are go dead without an end, as when a firewall forgets them. New ones work."""
        dead = self._run(self._deaden)
        yield
        self._run(lambda: self._abort(dead))

    def reset(self) -> None:
        """End all connections at once."""
        self._run(lambda: self._abort([*self.ends]))

    def cut(self, times: int) -> None:
        """Each of the next messages of the server ends in its middle, and with it the connection."""
        self._set("cuts", times)

    def _set(self, name: str, value: float) -> None:
        def change() -> None:
            setattr(self, name, value)
            for end in [*self.ends]:
                end.flush()

        self._run(change)

    def _abort(self, ends: Iterable[End]) -> None:
        for end in ends:
            end.abort()

    def _deaden(self) -> list[End]:
        for end in self.ends:
            end.is_dead = True
            end.held.clear()
        return [*self.ends]

    def _listen(self) -> None:
        self._listener = socket.create_server((LOOPBACK, self.port), backlog=1000)
        self._listener.setblocking(False)
        self.loop.add_reader(self._listener, self._accept)

    def _stop_listening(self) -> None:
        self.loop.remove_reader(self._listener)
        self._listener.close()

    async def _closed(self) -> None:
        await asyncio.gather(*self._connecting, return_exceptions=True)
        while self.ends:
            for end in [*self.ends]:
                end.abort()
            await asyncio.sleep(0)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return
        task = self.loop.create_task(self._relay(accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _relay(self, accepted: socket.socket) -> None:
        client, server = End(self, is_servers=False), End(self, is_servers=True)
        client.peer, server.peer = server, client
        self.ends |= {client, server}
        await self.loop.connect_accepted_socket(lambda: client, accepted)
        try:
            await self.loop.create_connection(lambda: server, LOOPBACK, self._port_of_server)
        except OSError:  # the server is down: the service sees its connection end
            client.abort()
            self.ends.discard(server)
        else:
            client.flush()

    def _run(self, function: Callable[[], T]) -> T:
        """Call it in the thread of the proxy, and return what it returns."""
        result: Future[T] = Future()

        def call() -> None:
            try:
                result.set_result(function())
            except Exception as error:
                result.set_exception(error)

        self.loop.call_soon_threadsafe(call)
        return result.result(LIMIT_SECONDS)
