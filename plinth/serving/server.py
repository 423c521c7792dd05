"""A Uvicorn server that stops without a reset: successors start first, busy connections end next, idle ones last.

Uvicorn closes idle connections as soon as it stops, and Gunicorn stops old workers before new ones have booted: a
request that arrives then gets a reset. This server accepts connections until its successors do (see `Fleet.may_stop`).
Then every response says `Connection: close` (RFC 9112 §9.6), and only a connection that stays idle ends without one.
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
from plinth.serving.stopping import announce_stop
from plinth.serving.watchdog import Watchdog

log = logging.getLogger(__name__)

# A client without a request for this long after the listener was closed may well keep its connection for minutes.
IDLE_SECONDS = 2.0
TICK_SECONDS = 0.05
PACE_SECONDS = 1.0
# In each iteration of the loop, libuv accepts one connection for each descriptor that it listens on. In overload an
# iteration takes long, and a connection, that of a probe too, would wait for all that came before it. So each socket is
# listened on under several descriptors. This costs a new connection 10 µs.
ACCEPTS = 8


class GracefulServer(Server):
    """Serves in one of Gunicorn's workers."""

    def __init__(self, config: Config, worker: Any) -> None:
        super().__init__(config)
        self._worker = worker
        self._watchdog = Watchdog(fleet.settings.blocked_seconds)
        self._draining = self._sigterm_received = False
        self._fast_shutdown_signals: list[int] = []  # SIGINT and SIGQUIT
        self._next_pace_check_at = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:  # Gunicorn repeats it every second
            self._sigterm_received = True
        else:
            self._fast_shutdown_signals.append(sig)
            self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        copies = [each.dup() for each in sockets or () for _ in range(ACCEPTS - 1)]
        await super().startup(sockets and [*sockets, *copies])
        if self.started:
            asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, self.handle_exit, signal.SIGQUIT, None)
            fleet.booted(self._worker.age)
            self._watchdog.start()

    async def on_tick(self, counter: int) -> bool:
        self._worker.notify()  # Uvicorn's own call depends on the wall clock, which may step back
        self._check_pace()
        if (draining := fleet.is_draining()) and not self._draining:
            log.info("Draining: readiness answers 503.")
        self._draining = draining
        return await super().on_tick(counter) or self._may_stop()

    def _may_stop(self) -> bool:
        worker = self._worker
        if os.getppid() != worker.ppid:  # the master was killed, and the next one needs the port
            return True
        # During a reload the master waits for the old workers, and only then passes its own SIGTERM on to the new ones.
        if fleet.is_stopping():
            return True
        if self._sigterm_received:
            return fleet.may_stop(worker.age, worker.ppid)
        return self.server_state.total_requests >= worker.max_requests and fleet.is_replaced(worker.age, worker.ppid)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        heartbeat = asyncio.create_task(self._heartbeat())
        for server in self.servers:
            server.close()
        log.info("Shutting down; %(open)d connections are open.", {"open": len(self.server_state.connections)})
        Protocol.stopping = True
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.announce_close()
            else:
                connection.shutdown()  # a WebSocket: closed with code 1012, service restart
        announce_stop()
        await self._wait_for_requests()
        for task in tuple(self.server_state.tasks):
            task.cancel()
        await super().shutdown(sockets)
        heartbeat.cancel()
        self._watchdog.stop()

    async def _wait_for_requests(self) -> None:
        """Wait until the last connection and request have ended, and close connections that are idle for too long."""
        state, now = self.server_state, time.monotonic()
        idle_deadline = now if self._fast_shutdown_signals else now + IDLE_SECONDS
        # After its graceful timeout Gunicorn kills the worker. A quarter of that is left for the end of the lifespan.
        deadline = now + self._worker.cfg.graceful_timeout * 3 / 4
        while (state.connections or state.tasks) and not self._must_hurry() and (now := time.monotonic()) < deadline:
            for connection in self._http_connections():
                if now >= idle_deadline and connection.idle:
                    connection.shutdown()
            await asyncio.sleep(TICK_SECONDS)

    def _must_hurry(self) -> bool:
        """Whether Ctrl-C was pressed twice. Each one arrives twice: as SIGINT, and as SIGQUIT from the master."""
        signals = self._fast_shutdown_signals
        return len(signals) > len(set(signals)) or (self._sigterm_received and bool(signals))

    def _http_connections(self) -> list[Protocol]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Protocol)]

    def _check_pace(self) -> None:
        if (now := time.monotonic()) >= self._next_pace_check_at:
            self._next_pace_check_at = now + PACE_SECONDS
            for connection in self._http_connections():
                connection.check_pace(now, fleet.settings)

    async def _heartbeat(self) -> None:
        """Keep the worker alive for Gunicorn, and the `Date` header current, while the server stops."""
        while True:
            self._worker.notify()
            self._check_pace()
            await super().on_tick(0)
            await asyncio.sleep(TICK_SECONDS)
