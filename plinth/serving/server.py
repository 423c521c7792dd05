"""Uvicorn's server, which leaves in another order: successors come first, then connections end, idle ones last.

Uvicorn closes idle and fresh connections as soon as it is asked to stop, and Gunicorn asks before the successors have
booted: both reset requests. Here the listener stays open until they have; then each connection hears
`Connection: close` with its next answer (RFC 9112 §9.6), and one that stays silent is closed at the end.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from types import FrameType
from typing import Any

from uvicorn import Config
from uvicorn.server import Server

from plinth.serving.fleet import fleet
from plinth.serving.protocol import Protocol
from plinth.serving.settings import ServerSettings
from plinth.serving.watchdog import Watchdog

log = logging.getLogger(__name__)

# A client that sends nothing for this long after the listener has closed may well keep its connection for minutes.
IDLE_SECONDS = 2.0
TICK_SECONDS = 0.05


class LeavingServer(Server):
    """Serves in one of Gunicorn's workers."""

    def __init__(self, config: Config, worker: Any, settings: ServerSettings) -> None:
        super().__init__(config)
        self._worker = worker
        self._settings = settings
        self._asked = False
        """To stop, by SIGTERM."""
        self._told: list[int] = []
        """The other signals to stop, which are from someone in a hurry."""
        self._watchdog = Watchdog()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:  # Gunicorn repeats it every second
            self._asked = True
            return
        self._told.append(sig)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, self.handle_exit, signal.SIGQUIT, None)
            fleet.booted(self._worker.age)
            self._watchdog.start()

    async def on_tick(self, counter: int) -> bool:
        self._watchdog.seen()
        self._worker.notify()  # Uvicorn does by the wall clock, which may step back
        file = self._settings.drain_file
        draining = fleet.draining or bool(self._told) or (file is not None and file.exists())
        self.config.app.state.draining = draining  # type: ignore[union-attr]
        return await super().on_tick(counter) or self._may_leave()

    def _may_leave(self) -> bool:
        worker = self._worker
        if os.getppid() != worker.ppid:  # the master was killed, and the next one needs the port
            return True
        if self._asked:
            return fleet.may_leave(worker.age, worker.ppid)
        worn = self.server_state.total_requests >= worker.max_requests
        return worn and fleet.is_replaced(worker.age, worker.ppid)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        beating = asyncio.create_task(self._beat())
        for server in self.servers:
            server.close()
        log.info("Leaving; %(open)d connections are open.", {"open": len(self.server_state.connections)})
        self.config.encoded_headers.append((b"connection", b"close"))
        await super().on_tick(0)
        for connection in self.server_state.connections:
            if isinstance(connection, Protocol):
                connection.announce_close()
        until = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        await self._until_connections_end(until)
        left = 0 if self._impatient else max(0, until - time.monotonic())
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]
        await super().shutdown(sockets)
        beating.cancel()
        self._watchdog.stop()

    @property
    def _impatient(self) -> bool:
        """At a terminal the first Ctrl-C comes as SIGINT to all, and as SIGQUIT from the master; so count each."""
        return len(self._told) > len(set(self._told)) or (self._asked and bool(self._told))

    async def _until_connections_end(self, until: float) -> None:
        idle_until = time.monotonic() + (0 if self._told else IDLE_SECONDS)
        connections = self.server_state.connections
        while connections and not self._impatient and (now := time.monotonic()) < until:
            if now >= idle_until:
                for connection in tuple(connections):
                    if isinstance(connection, Protocol) and connection.idle:
                        connection.shutdown()
            await asyncio.sleep(TICK_SECONDS)

    async def _beat(self) -> None:
        """Gunicorn kills a worker that it does not hear of."""
        while True:
            self._watchdog.seen()
            self._worker.notify()
            await super().on_tick(0)
            await asyncio.sleep(TICK_SECONDS)
