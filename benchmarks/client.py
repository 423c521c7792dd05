"""Load driver for machines without wrk: keep-alive connections, one request at a time on each.

`python -m benchmarks.client URL FILE CONNECTIONS SECONDS` prints the same JSON line as wrk.lua.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import uvloop

from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK

AUTHORIZATION = "BENCHMARKS_AUTHORIZATION"
"""The variable of the environment that has the header of requests with a body."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Run:
    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self.port = port
        self.requests = requests
        self.finished = False
        self.latencies: list[float] = []
        self.errors = 0

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Connection(self), LOOPBACK, self.port)


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, run: Run) -> None:
        self.run = run
        self.received = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self.received = b""
        self.sent_at = perf_counter()
        self.transport.write(next(self.run.requests))

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.received[:end]
        length = LENGTH.search(head)
        if head[9:12] != b"304" and (length is None or len(self.received) < end + 4 + int(length[1])):
            return
        now = perf_counter()
        self.run.latencies.append(now - self.sent_at)
        self.run.errors += head[9:12] >= b"400"
        self.sent_at = 0.0
        if self.run.finished or CLOSES.search(head):
            self.transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.run.finished:
            self.run.errors += self.sent_at > 0
            asyncio.ensure_future(self.run.connect())  # noqa: RUF006 - the run outlives the task


def request(line: str) -> bytes:
    """The bytes of a request, given as `GET path [header]` or `METHOD path body`."""
    method, path, *rest = line.split(" ", 2)
    rest_of_line = "".join(rest)
    body = b"" if method == "GET" else rest_of_line.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n"
    if rest_of_line and not body:
        head += f"{rest_of_line}\r\n"
    if body and (authorization := os.environ.get(AUTHORIZATION)):
        head += f"Authorization: {authorization}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def body_of(connection: HTTPConnection, path: str) -> bytes:
    """Of the response to a GET. Raises SetupError for any but 200."""
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise SetupError(f"{path} was answered {response.status}.")
    return body


async def main(port: int, lines: list[str], connections: int, seconds: float) -> None:
    run = Run(port, cycle([request(line) for line in lines]))
    started_at = perf_counter()
    await asyncio.gather(*(run.connect() for _ in range(connections)))
    await asyncio.sleep(seconds)
    run.finished = True
    elapsed = perf_counter() - started_at
    percentiles = quantiles(run.latencies, n=100) if len(run.latencies) > 1 else [0.0] * 99
    figures = {
        "requests": len(run.latencies),
        "seconds": elapsed,
        "p50_ms": percentiles[49] * 1e3,
        "p99_ms": percentiles[98] * 1e3,
        "max_ms": max(run.latencies, default=0.0) * 1e3,
        "errors": run.errors,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    url, file, connections, seconds = sys.argv[1:]
    lines = Path(file).read_text().splitlines()
    uvloop.run(main(urlsplit(url).port or 80, lines, int(connections), float(seconds)))
