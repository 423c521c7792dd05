"""How the server stops, in this process: on a listener without clients."""

import asyncio
import os
import signal
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

from uvicorn import Config

from plinth.serving.protocol import Protocol
from plinth.serving.server import GracefulServer
from plinth.serving.watchdog import BLOCKED_SECONDS
from tests.plinth.http.apps import answering


class WebSocket:
    """Stands for a connection of one of Uvicorn's WebSocket protocols, whose libraries are optional."""

    def __init__(self, server: GracefulServer) -> None:
        self.connections = cast(set[Any], server.server_state.connections)
        self.connections.add(self)
        self.shutdowns = 0

    def shutdown(self) -> None:
        self.shutdowns += 1
        self.connections.discard(self)


async def test_websockets_are_closed_at_once() -> None:
    worker = SimpleNamespace(
        age=1,
        ppid=os.getppid(),
        max_requests=sys.maxsize,
        cfg=SimpleNamespace(graceful_timeout=1000),
        notify=lambda: None,
    )
    server = GracefulServer(Config(cast(Any, answering(b"")), lifespan="off", log_config=None), worker)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        connection = WebSocket(server)
        server.should_exit = True
        try:
            await asyncio.wait_for(serving, 10)
            await asyncio.sleep(BLOCKED_SECONDS / 2)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGQUIT)
            Protocol.stopping = False
    assert connection.shutdowns == 1
    assert "watchdog" not in {thread.name for thread in threading.enumerate() if thread.is_alive()}
