"""The process that sends the requests of `Traffic`.

`python -m tests.faults.driver FILE PORT MIX RATE FIRST` sends until its standard input ends, and then writes how many
answers there were, the CPU time that it took, and an `Answer` in each line. A rate of 0 is a closed loop instead, of 64
connections, which finds the peak. The requests are numbered from FIRST on.
"""

import asyncio
import json
import random
import re
import resource
import sys
from collections import deque
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import uvloop

from tests.faults.traffic import CACHED, KINDS, LOST, MIXES, NO_ANSWER, ROWS, Answer

PATIENCE_SECONDS = 12.0
TICK_SECONDS = 0.002
CONNECTIONS = 64  # of a closed loop
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
FIELDS = re.compile(rb"\r\n(x-cache|retry-after|x-request-id|content-type): *([^\r]*)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Sends one request at a time, the first one as soon as it is connected."""

    def __init__(self, driver: "Driver") -> None:
        self.driver = driver
        self.transport: asyncio.Transport | None = None
        self.kind, self.number, self.due, self.sent = "", 0, 0.0, 0.0
        self.request = self.echo = b""
        self.received = b""
        self.is_abandoned = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.is_abandoned:  # its patience ended while it was connecting
            self.transport.abort()
        elif self.request:
            self.transport.write(self.request)

    def send(self, kind: str, number: int, due: float) -> None:
        self.kind, self.number, self.due, self.sent = kind, number, due, perf_counter()
        method, path = KINDS[kind]
        values = {"n": number, "cached": number % CACHED, "any": number % ROWS}
        field = path.partition("{")[2].partition("}")[0]
        self.echo = b'"id":%d' % values[field] if field and kind != "search" else b""
        head = f"{method} {path.format(**values)} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-ID: {kind}-{number}\r\n"
        self.request = f"{head}\r\n".encode()
        if self.transport:
            self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        data = self.received + data
        end = data.find(b"\r\n\r\n")
        length = LENGTH.search(data, 0, end) if end > 0 else None
        is_bodiless = end > 0 and data[9:12] in {b"204", b"304"}
        complete = is_bodiless or (len(data) >= end + 4 + int(length[1]) if length else data.endswith(b"\r\n0\r\n\r\n"))
        if not complete:
            self.received = data
            return
        self.received = b""
        fields = {name.lower(): value for name, value in FIELDS.findall(data, 0, end + 2)}
        status, body = int(data[9:12]), data[end + 4 :]
        is_ours = fields.get(b"x-request-id") == b"%b-%d" % (self.kind.encode(), self.number)
        self.finish(
            status,
            cache=fields.get(b"x-cache", b"").decode(),
            retry_after=fields.get(b"retry-after", b"").decode(),
            is_problem=fields.get(b"content-type") == b"application/problem+json",
            is_unknown=b"outcome-unknown" in body,
            is_ours=is_ours and (status >= 300 or self.echo in body),
        )
        self.driver.answered(self, CLOSES.search(data, 0, end) is not None)

    def connection_lost(self, error: Exception | None) -> None:
        self.finish(LOST)

    def give_up(self) -> None:
        self.finish(NO_ANSWER)
        self.is_abandoned = True
        if self.transport:
            self.transport.abort()

    def finish(self, status: int, **found: Any) -> None:
        """Record the answer to the request, if there is one that has none yet."""
        if self.request:
            self.request = b""
            answer = Answer(self.kind, self.number, self.due, self.sent, perf_counter(), status, **found)
            self.driver.answers.append(answer)


class Driver:
    def __init__(self, port: int, mix: str, rate: float, first: int) -> None:
        self.port = port
        self.rate = rate
        self.number = first
        self.answers: list[Answer] = []
        self._kinds, self._weights = [*MIXES[mix]], [*MIXES[mix].values()]
        self._random = random.Random(first)
        self._idle: deque[Connection] = deque()
        self._sent: deque[tuple[float, Connection]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_finished = False

    def send(self, due: float) -> None:
        while self._idle:
            connection = self._idle.popleft()  # by turns, so that both workers have their part
            if connection.transport and not connection.transport.is_closing():
                break
        else:
            connection = self._connect()
        self._sent.append((due, connection))
        connection.send(self._random.choices(self._kinds, self._weights)[0], self.number, due)
        self.number += 1

    def _connect(self) -> Connection:
        connection = Connection(self)

        async def connect() -> None:
            try:
                await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self.port)
            except OSError:
                connection.finish(LOST)

        task = asyncio.ensure_future(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return connection

    def answered(self, connection: Connection, closes: bool) -> None:
        if closes and connection.transport:
            connection.transport.close()
        else:
            self._idle.append(connection)
        if not self.rate and not self._is_finished:
            self.send(perf_counter())

    async def run(self) -> None:
        stopped = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        if self.rate:
            self._idle.extend([self._connect() for _ in range(CONNECTIONS // 4)])
            await asyncio.gather(*self._connecting)
        sys.stdout.write("sending\n")
        sys.stdout.flush()
        began = perf_counter()
        for _ in range(0 if self.rate else CONNECTIONS):
            self.send(began)
        count = 0
        while not stopped.done():
            now = perf_counter()
            while self.rate and began + count / self.rate <= now:
                self.send(began + count / self.rate)
                count += 1
            self._end_patience(now)
            await asyncio.sleep(TICK_SECONDS)
        self._is_finished = True
        while any(connection.request for _, connection in self._sent):
            self._end_patience(perf_counter())
            await asyncio.sleep(TICK_SECONDS)

    def _end_patience(self, now: float) -> None:
        while self._sent and self._sent[0][0] < now - PATIENCE_SECONDS:
            due, connection = self._sent.popleft()
            if connection.request and connection.due == due:
                connection.give_up()


def main(file: str, port: str, mix: str, rate: str, first: str) -> None:
    driver = Driver(int(port), mix, float(rate), int(first))
    uvloop.run(driver.run())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    lines = [f"{len(driver.answers)} {usage.ru_utime + usage.ru_stime}", *map(json.dumps, driver.answers)]
    Path(file).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
