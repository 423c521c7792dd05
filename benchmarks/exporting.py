"""How fast all products are exported, compared with psql's `\\copy`, and what memory that takes."""

import socket
import subprocess
from collections.abc import Generator
from contextlib import closing
from operator import truediv
from statistics import median
from time import perf_counter, sleep

from benchmarks.figures import at_least, at_most
from benchmarks.processes import DRIVER_CORES, peak_megabytes, pinned, reset_peak
from benchmarks.servers import Server
from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK
from plinth.testing.postgres import binaries
from plinth.testing.servers import POSTGRES_VERSION

COPY = r"""\copy (SELECT p.id, p.sku, p.name, p.description, p.price, p.stock, p.category_id, c.name, p.version,
 p.created_at, p.updated_at FROM products p JOIN categories c ON c.id = p.category_id ORDER BY p.id) TO STDOUT
""".replace("\n", "")
FORMATS = ("ndjson", "csv", "json")
ROUNDS = 3
FIRST_BYTES = 10
PIECE = 65_536
STALL_SECONDS, PAUSE_SECONDS = 3.0, 0.02

SHARE, FIRST_BYTE_MS, MORE_MEGABYTES = 0.25, 100, 50


def exports(app: Server, url: str, products: int) -> list[list[str]]:
    """The rows of the table."""
    with pinned(DRIVER_CORES):
        first = {format: [first_byte_ms(app, format) for _ in range(FIRST_BYTES)] for format in FORMATS}
        before = reset_peak(app.workers[0])
        rates: dict[str, list[float]] = {"psql": [], **{format: [] for format in FORMATS}}
        for _ in range(ROUNDS):
            rates["psql"].append(products / copy_seconds(url))
            for format in FORMATS:
                rates[format].append(products / seconds_of(app, format))
        quick = peak_megabytes(app.workers[0]) - before
        before = reset_peak(app.workers[0])
        read_slowly(app)
        slow = peak_megabytes(app.workers[0]) - before
    psql = median(rates["psql"])
    shares = {format: median(map(truediv, rates[format], rates["psql"])) for format in FORMATS}
    return [
        *[
            [f"export, {format}: {median(rates[format]):,.0f} rows/s ÷ {psql:,.0f} of psql", at_least(share, SHARE)]
            for format, share in shares.items()
        ],
        *[
            [f"export, {format}: the first byte, ms (the slowest of {FIRST_BYTES})", at_most(max(times), FIRST_BYTE_MS)]
            for format, times in first.items()
        ],
        ["export: MB that the worker grows (RSS, highest)", at_most(quick, MORE_MEGABYTES)],
        ["export: the same with gzip and a slow reader", at_most(slow, MORE_MEGABYTES)],
    ]


def copy_seconds(url: str) -> float:
    psql = str(binaries(POSTGRES_VERSION) / "psql")
    began = perf_counter()
    done = subprocess.run(
        [psql, "-Xqw", "-d", url, "-c", COPY], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SetupError(f"psql failed: {done.stderr}")
    return perf_counter() - began


def seconds_of(app: Server, format: str) -> float:
    began = perf_counter()
    for _ in pieces(app.port, format, app.authorization):
        pass
    return perf_counter() - began


def first_byte_ms(app: Server, format: str) -> float:
    """Of the body; then the client leaves."""
    began = perf_counter()
    with closing(pieces(app.port, format, app.authorization)) as received:
        next(received)
        return (perf_counter() - began) * 1e3


def read_slowly(app: Server) -> None:
    """With gzip, by a client that reads nothing for a while, and then in small pieces."""
    for number, _ in enumerate(pieces(app.port, "ndjson", app.authorization, "gzip")):
        sleep(PAUSE_SECONDS if number else STALL_SECONDS)


def pieces(port: int, format: str, authorization: str, encoding: str = "identity") -> Generator[bytes]:
    """The body as it arrives: with the marks of its chunks, which this client need not take out of it.

    Raises SetupError for an answer that is an error or breaks off.
    """
    with socket.create_connection((LOOPBACK, port), timeout=60) as client:
        client.sendall(
            f"GET /api/products/export?format={format} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n"
            f"Accept-Encoding: {encoding}\r\nAuthorization: {authorization}\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received and (piece := client.recv(PIECE)):
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        if head[9:12] != b"200":
            raise SetupError(f"An export was answered {head[:200]!r}.")
        last = b""
        while body or (body := client.recv(PIECE)):
            yield body
            last, body = (last + body)[-5:], b""
        if last != b"0\r\n\r\n":
            raise SetupError("An export broke off.")
