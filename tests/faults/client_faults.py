"""What clients do to a service."""

import asyncio
import random
import socket
import struct
from contextlib import suppress
from itertools import count
from time import monotonic, sleep
from typing import Any

from tests.faults.scraping import until
from tests.faults.service import DEADLINE_SECONDS, SLOW_CLIENT_SECONDS, Service
from tests.faults.traffic import CACHED

ABORTED = 10_000
SLOW_SENDERS, SLOW_READERS = 480, 20
LARGE_BYTES = 6_000_000
"""More than the buffers of a connection hold, by far the largest of which is the kernel's for sending."""
MOST_HELD = 10
HOGS = 60
HOG_SECONDS = 2
SLEEPING = "SELECT count(*)::int FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1"
READS, WRITES = "SELECT CAST(pg_sleep%", "SELECT pg_sleep%"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the end of the connection is a reset
numbers = count(10**12)
"""Of writes that are not those of the traffic."""


def request(method: str, path: str, headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode()


def pools_exhausted(service: Service, seconds: float) -> None:
    """More slow requests than there are connections, for reads and for writes."""
    end = monotonic() + seconds

    async def hog(path: str) -> None:
        while monotonic() < end:
            with suppress(OSError):
                await _answer(service, request("POST" if "writes" in path else "GET", path.format(next(numbers))))

    async def hogs() -> None:
        paths = [f"/slow/{HOG_SECONDS}", f"/writes/{{}}?seconds={HOG_SECONDS}"] * (HOGS // 2)
        await asyncio.gather(*map(hog, paths))

    asyncio.run(hogs())


def slow_queries(service: Service, seconds: float) -> None:
    """Each would take longer than its deadline: it is answered 504, and PostgreSQL works for it no longer."""
    slow = request("GET", f"/slow/{DEADLINE_SECONDS + 5}")

    async def run() -> list[bytes]:
        return await asyncio.gather(*(_answer(service, slow) for _ in range(5)))

    heads = asyncio.run(run())
    assert all(b" 504 " in head[:20] for head in heads), heads
    until(lambda: _sleeping(service, READS) == 0, DEADLINE_SECONDS)
    sleep(max(0, seconds - DEADLINE_SECONDS))


def requests_aborted(service: Service, seconds: float) -> None:
    """10,000 of all kinds, at any moment: before the answer, in the middle of it, or in the middle of the request."""
    paths = ["/notes/{}", f"/cached/{random.randrange(CACHED)}", "/notes", "/notes/export", "/large", "/writes/{}"]

    async def abort(turns: asyncio.Semaphore) -> None:
        path = random.choice(paths)
        sent = request("POST" if "writes" in path else "GET", path.format(next(numbers)))
        async with turns:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
                writer.write(sent[: random.choice([len(sent), len(sent), len(sent) // 2])])
                with suppress(TimeoutError):
                    async with asyncio.timeout(random.expovariate(200)):
                        await reader.read(random.choice([1, 100]))
                _reset(writer)

    async def run() -> None:
        turns = asyncio.Semaphore(8)
        await asyncio.gather(*(abort(turns) for _ in range(ABORTED)))

    asyncio.run(run())


def clients_slow(service: Service, seconds: float) -> None:
    """Those who send a head or a body, or read an answer, more slowly than is allowed."""

    async def send(start: bytes) -> None:
        reader, writer = await _connected(service)
        with suppress(OSError):
            writer.write(start)
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await reader.read(100_000)
                        break  # the server has ended it, with an answer or without
                writer.write(b"x")
                await writer.drain()
        _reset(writer)

    async def read() -> None:
        reader, writer = await _connected(service)
        writer.write(request("GET", f"/large?size={LARGE_BYTES}", "Connection: close\r\n"))
        await asyncio.sleep(4 * SLOW_CLIENT_SECONDS)
        _socket_of(writer).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)  # quickly now, up to the end
        with suppress(OSError):
            received = await reader.read(10_000_000)
            while more := await reader.read(10_000_000):
                received += more
            assert b"\r\n\r\n" in received
            assert len(received) < LARGE_BYTES, "the whole answer was sent to a client that did not read it"
        _reset(writer)

    async def watch() -> float:
        """The least that were in use at a time: traffic, and the first moment of these, need some for an instant."""
        end, least = monotonic() + 2 * SLOW_CLIENT_SECONDS, float("inf")
        while monotonic() < end:
            least = min(least, await asyncio.to_thread(service.pools_in_use))
        return least

    async def run() -> None:
        body = request("POST", "/bodies/1", "Content-Type: application/json\r\nContent-Length: 100000\r\n")
        senders = [send(start) for start in [body, body[:-2]] * (SLOW_SENDERS // 2)]
        readers = [read() for _ in range(SLOW_READERS)]
        everything = asyncio.gather(*senders, *readers)
        least = await watch()
        assert least < MOST_HELD, f"{least} connections of pools were in use all the time"
        async with asyncio.timeout(10 * SLOW_CLIENT_SECONDS):
            await everything

    asyncio.run(run())


def clients_leave(service: Service, seconds: float) -> None:
    """Reads end with their clients. Writes are carried out to their end."""
    first = next(numbers)
    connections = []
    for path in [f"/slow/{DEADLINE_SECONDS - 0.2}"] * 5 + [f"/writes/{next(numbers)}?seconds=1" for _ in range(5)]:
        connections.append(service.connect())
        connections[-1].sendall(request("POST" if "writes" in path else "GET", path))
    until(lambda: (_sleeping(service, READS), _sleeping(service, WRITES)) == (5, 5))
    began = monotonic()
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
    until(lambda: _sleeping(service, READS) == 0, DEADLINE_SECONDS - 2)
    until(lambda: len(service.fetch("SELECT FROM fault_writes WHERE number > $1", first)) == 5)
    sleep(max(0, began + seconds - monotonic()))


def _sleeping(service: Service, statements: str) -> int:
    return int(service.fetch(SLEEPING, statements)[0][0])


async def _connected(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Some time within the next two seconds, and with a small window: what is not read soon fills all buffers."""
    await asyncio.sleep(random.uniform(0, 2))
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", service.port))
    return await asyncio.open_connection(sock=connection, limit=4096)


async def _answer(service: Service, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(sent)
    head = await reader.read(10_000)
    writer.close()
    return head


def _socket_of(writer: asyncio.StreamWriter) -> Any:
    return writer.get_extra_info("socket")


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        _socket_of(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
