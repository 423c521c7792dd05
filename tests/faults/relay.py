"""What the proxy does to the bytes of a connection."""

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tests.faults.proxy import Proxy

TICK_SECONDS = 0.02  # between two pieces of a stream whose bandwidth is limited


class End(asyncio.Protocol):
    """One of the two sockets of a connection. What it receives is kept until the other end may send it."""

    peer: "End"

    def __init__(self, proxy: "Proxy", is_servers: bool) -> None:
        self.proxy = proxy
        self.is_servers = is_servers
        self.transport: asyncio.Transport | None = None
        self.is_dead = False
        """Whatever arrives here is lost, and the other side never learns of it."""
        self.held: deque[tuple[float, bytes | None]] = deque()
        """When to send, and what; `b""` is the end of what is sent, and None that of the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.proxy.is_faithful and not self.held and not self.is_dead and self.peer.transport:
            self.peer.transport.write(data)
        else:
            self._hold(data)

    def eof_received(self) -> bool:
        self._hold(b"")
        return True  # the transport stays open until the other side has received all of this

    def connection_lost(self, error: Exception | None) -> None:
        self._hold(None)
        self.proxy.ends.discard(self)

    def _hold(self, data: bytes | None) -> None:
        if not self.is_dead:
            latency = self.proxy.latency_seconds if self.is_servers else 0.0
            self.held.append((self.proxy.loop.time() + latency, data))
            self.flush()

    def flush(self) -> None:
        """Send what is due, unless nothing passes at present or the peer is not connected yet."""
        proxy, now = self.proxy, self.proxy.loop.time()
        while self.held and not proxy.is_silent and self.peer.transport:
            due_at, data = self.held[0]
            if due_at > now:
                proxy.loop.call_at(due_at, self.flush)
                return
            self.held.popleft()
            if self.peer.transport.is_closing():
                continue
            if data is None:
                self.peer.transport.close()
            elif not data:
                with suppress(OSError):  # the peer is gone, which the loop will say in a moment
                    self.peer.transport.write_eof()
            elif self.is_servers and proxy.cuts:
                # What was promised by the length of the message never arrives.
                proxy.cuts -= 1
                self.peer.transport.write(data[: len(data) // 2])
                self.peer.transport.close()
                self.abort()
                return
            elif self.is_servers and proxy.bytes_per_second:
                most = max(1, int(proxy.bytes_per_second * TICK_SECONDS))
                self.peer.transport.write(data[:most])
                if data[most:]:
                    self.held.appendleft((now + TICK_SECONDS, data[most:]))
            else:
                self.peer.transport.write(data)

    def abort(self) -> None:
        """Reset the connection."""
        if self.transport and not self.transport.is_closing():
            linger = struct.pack("ii", 1, 0)  # for no time at all: RST in place of FIN
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
