"""How the server stops, in this process: on a listener without clients."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn import Config

from plinth.serving import ServerSettings, fleet
from plinth.serving.protocol import Protocol
from plinth.serving.server import ACCEPTS, GracefulServer
from tests.plinth.http.apps import answering
from tests.plinth.serving.wire import echo


class WebSocket:
    """Stands for a connection of one of Uvicorn's WebSocket protocols, whose libraries are optional."""

    def __init__(self, server: GracefulServer) -> None:
        self.connections = cast(set[Any], server.server_state.connections)
        self.connections.add(self)
        self.shutdowns = 0

    def shutdown(self) -> None:
        self.shutdowns += 1
        self.connections.discard(self)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[tuple[GracefulServer, tuple[str, int]]]:
    """A server in a worker, which stops at the end of the block, and its address."""
    worker = SimpleNamespace(
        age=1,
        ppid=os.getppid(),
        max_requests=sys.maxsize,
        cfg=SimpleNamespace(graceful_timeout=1000),
        notify=lambda: None,
    )
    server = GracefulServer(Config(app, lifespan="off", log_config=None, http=Protocol), worker)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        try:
            yield server, listener.getsockname()
            server.should_exit = True
            await asyncio.wait_for(task, 10)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGQUIT)
            Protocol.stopping = False


async def test_a_burst_of_connections_is_accepted_in_few_iterations_of_the_loop() -> None:
    """Otherwise a probe waits for as many iterations as there are connections before its own."""
    async with serving(echo) as (server, address):
        clients = [socket.socket() for _ in range(8 * ACCEPTS)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(address)
        for _ in range(8 + 4):
            await asyncio.sleep(0)
        accepted = len(server.server_state.connections)
        for client in clients:
            client.close()
    assert accepted == len(clients)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET / HT", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n123", b"HTTP/1.1 408 "),
    ],
    ids=["idle", "header", "body"],
)
async def test_a_slow_client_is_cut_off(monkeypatch: pytest.MonkeyPatch, sent: bytes, status: bytes) -> None:
    quick = {"header_timeout_seconds": 0.1, "body_timeout_seconds": 0.1, "keep_alive_seconds": 1}
    monkeypatch.setattr(fleet, "settings", ServerSettings(**quick))
    async with serving(echo) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert answer.startswith(status)
    assert bool(answer) == bool(status)


async def test_websockets_are_closed_at_once() -> None:
    async with serving(answering(b"")) as (server, _):
        connection = WebSocket(server)
    assert connection.shutdowns == 1
    for thread in threading.enumerate():
        if thread.name == "watchdog":
            thread.join(30)  # it ends by itself
            assert not thread.is_alive()
