"""Counts round trips on the wire, by a proxy between the app and its server.

Run a statement once before counting it (`with wire.counting() as count:`): preparing it is a round trip of its own.
"""

import asyncio
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

UNTAGGED, PASSWORD, TERMINATE, PARSE, BIND, QUERY = b"\0pXPBQ"
WAITS = frozenset(b"SQHF")  # Sync, Query, Flush, FunctionCall; asyncpg sends the data of a COPY without waiting
ENCRYPTION_REQUESTS = {(8).to_bytes(4) + code.to_bytes(4) for code in (80877103, 80877104)}
URL = TypeVar("URL", str, SecretStr)
RESP_LENGTH = re.compile(rb".(.*?)\r\n")


@dataclass
class Count:
    connections: int = 0
    round_trips: int = 0  # all that a client sends before the server's next byte is one, a pipeline under 100 kB too
    messages: int = 0  # the client's, without login and termination; for Redis, its commands
    bytes_sent: int = 0  # by the client
    bytes_received: int = 0
    statements: list[str] = field(default_factory=list)  # SQL that was run, including statements prepared earlier
    commands: list[str] = field(default_factory=list)  # Redis: the first word of each


class End(asyncio.Protocol):
    """One of the two sockets of a connection through the wire."""

    peer: "End"
    transport: asyncio.Transport

    def __init__(self, open_ends: set["End"], on_data: Callable[["End", bytes], bytes]) -> None:
        self.stream = bytearray()  # of a client: the incomplete frame received so far
        self.waiting = False
        self.prepared: dict[bytes, str] = {}
        self.closed = asyncio.get_running_loop().create_future()
        self._open_ends = open_ends
        self._on_data = on_data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._open_ends.add(self)

    def data_received(self, data: bytes) -> None:
        forwarded = self._on_data(self, data)
        if not self.peer.transport.is_closing():  # one end may close while data from the other is in flight
            self.peer.transport.write(forwarded)

    def pause_writing(self) -> None:
        self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ends.discard(self)
        if self.peer in self._open_ends:
            self.peer.transport.close()
        self.closed.set_result(None)


class Wire(ABC):
    """Relays each connection to its own port to the server at `host` and `port`, and closes all of them on exit."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._count = Count()
        self._open_ends: set[End] = set()
        self._relays: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        await asyncio.gather(*self._relays)
        for end in list(self._open_ends):
            end.transport.abort()
            await end.closed

    def through(self, url: URL) -> URL:
        """The server's URL with the address of this proxy."""
        if isinstance(url, SecretStr):
            return SecretStr(self.through(url.get_secret_value()))  # type: ignore[return-value]
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}"))

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count what passes during the block. Blocks must not overlap."""
        self._count = count = Count()
        yield count
        self._count = Count()

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        self._relays.append(asyncio.create_task(self._relay(accepted)))

    async def _relay(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        client, server = End(self._open_ends, self._sent), End(self._open_ends, self._received)
        client.peer, server.peer = server, client
        try:
            await loop.create_connection(lambda: server, *self._upstream)
        except OSError:  # the server is down: the app sees its connection close
            accepted.close()
            return
        server.transport.pause_reading()  # until there is a client to write to
        await loop.connect_accepted_socket(lambda: client, accepted)
        server.transport.resume_reading()
        self._count.connections += 1

    def _sent(self, client: End, data: bytes) -> bytes:
        self._count.bytes_sent += len(data)
        client.stream += data
        return b"".join(self._read(client, frame) for frame in cut(client.stream, self.end_of_frame))

    def _received(self, server: End, data: bytes) -> bytes:
        self._count.bytes_received += len(data)
        self._count.round_trips += server.peer.waiting
        server.peer.waiting = False
        return data

    @staticmethod
    @abstractmethod
    def end_of_frame(stream: bytearray) -> int | None:
        """The end of the stream's first frame; None while its length has not arrived."""

    @abstractmethod
    def _read(self, client: End, frame: bytes) -> bytes:
        """Count a frame and return the bytes to forward."""


class WirePostgres(Wire):
    @staticmethod
    def end_of_frame(stream: bytearray) -> int | None:
        # Only startup packets have no tag. They begin with their length, whose first byte is 0, and no tag is 0.
        tagged = stream[0] != UNTAGGED
        length = stream[tagged : tagged + 4]
        return tagged + int.from_bytes(length) if len(length) == 4 else None

    def _read(self, client: End, frame: bytes) -> bytes:
        if frame in ENCRYPTION_REQUESTS:
            client.transport.write(b"N")  # encrypted traffic cannot be counted; the client continues unencrypted
            return b""
        tag = frame[0]
        if tag not in (UNTAGGED, PASSWORD, TERMINATE):
            client.waiting |= tag in WAITS
            self._count.messages += 1
        if tag == QUERY:
            self._count.statements.append(frame[5:-1].decode())
        elif tag == PARSE:
            name, text, _ = frame[5:].split(b"\0", 2)
            client.prepared[name] = text.decode()
        elif tag == BIND:
            _, name, _ = frame[5:].split(b"\0", 2)
            self._count.statements.append(client.prepared.get(name, ""))
        return frame


class WireRedis(Wire):
    @staticmethod
    def end_of_frame(stream: bytearray) -> int | None:
        if not (line := RESP_LENGTH.match(stream)):
            return None
        end = line.end()
        for _ in range(int(line[1])):
            if not (line := RESP_LENGTH.match(stream, end)):
                return None
            end = line.end() + int(line[1]) + len(b"\r\n")
        return end

    def _read(self, client: End, frame: bytes) -> bytes:
        client.waiting = True
        self._count.messages += 1
        self._count.commands.append(frame.split(b"\r\n", 3)[2].decode().upper())
        return frame


def cut(stream: bytearray, end_of_frame: Callable[[bytearray], int | None]) -> Iterator[bytes]:
    """Remove and yield the complete frames at the front of the stream."""
    while stream and (end := end_of_frame(stream)) and end <= len(stream):
        yield bytes(stream[:end])
        del stream[:end]
