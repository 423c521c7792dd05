"""`make bench-data`: searches, imports, pages and exports of a large catalogue, compared with what they should cost."""

import json
import re
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from itertools import islice
from random import Random
from statistics import median
from time import perf_counter

from benchmarks import exporting, searching
from benchmarks.client import body_of
from benchmarks.figures import at_least, at_most, table
from benchmarks.measure import show
from benchmarks.processes import DRIVER_CORES, OTHER_CORES, SERVER_CORES, pinned
from benchmarks.scenarios import CREATE
from benchmarks.servers import Server
from benchmarks.testbed import testbed
from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK

PRODUCTS = 1_000_000
SEARCHED = 100_000
SAMPLES, SECONDS = 300, 60

FILES, FILE_ROWS, SINGLE_ROWS = 10, 10_000, 1_000
BULK_TIMES = 20

PAGE_ROWS, DEEP_PAGE = 100, 10_000
SORTS = ["id", "-price", "name"]
PAGE_SAMPLES = 300
DEEP_LIMIT = 1.5
NEXT_CURSOR = re.compile(rb'"next_cursor":"([^"]+)"')

Row = list[str]


def data(products: int = PRODUCTS) -> int:
    """Returns the exit code: 1 if a bound is missed."""
    share = min(1.0, products / PRODUCTS)  # of everything, for a quick try
    show(_cores())
    with testbed(min(SEARCHED, products)) as bed:
        app = bed.app()
        show(f"\n{bed.products:,} products\n")
        found = searching.searches(bed, app, max(20, int(SAMPLES * share)), max(3, int(SECONDS * share)))
        show(f"{table(searching.HEAD, found)}\n")
        imported = [_bulk(app, max(100, int(FILE_ROWS * share)), max(10, int(SINGLE_ROWS * share)))]
        show(table(["", "figure"], imported))
    with testbed(products) as bed:
        app = bed.app(DATABASE_EXPORTS="20")
        show(f"\n{products:,} products\n")
        figures = [_deep_page(app, sort, products, max(50, int(PAGE_SAMPLES * share))) for sort in SORTS]
        figures += exporting.exports(app, bed.servers.database_url, products)
        show(table(["", "figure"], figures))
    missed = missed_in([*found, *imported, *figures])
    show("\n".join(["", *missed]) if missed else "\nNo bound is missed.")
    return bool(missed)


def missed_in(rows: Sequence[Row]) -> list[str]:
    """A line for each figure of a table that misses its bound."""
    return [f"Missed: {row[0]}, {cell.strip('*')}" for row in rows for cell in row[1:] if cell.startswith("**")]


def _cores() -> str:
    shared = "PostgreSQL" if DRIVER_CORES & OTHER_CORES else "the app"
    cores = f"the app {sorted(SERVER_CORES)}, PostgreSQL {sorted(OTHER_CORES)}, the driver {sorted(DRIVER_CORES)}"
    return f"Cores: {cores}. The driver shares those of {shared}."


def _bulk(app: Server, file_rows: int, single_rows: int) -> Row:
    """Files of products, and between them products one by one, on one connection each."""
    bodies = (line.split(" ", 2)[2] for line in CREATE.lines(Random(2026), 0, FILES * file_rows + single_rows))
    single, bulk = list[float](), list[float]()
    with pinned(DRIVER_CORES), closing(HTTPConnection(LOOPBACK, app.port, timeout=60)) as connection:
        for _ in range(FILES):
            for body in islice(bodies, single_rows // FILES):
                single.append(_posted(app, connection, "/api/products", body, "application/json"))
            file = "\n".join(islice(bodies, file_rows))
            bulk.append(_posted(app, connection, "/api/products/bulk", file, "application/x-ndjson") / file_rows)
    one, of_many = median(single), median(bulk)
    name = f"bulk: {1 / of_many:,.0f} rows/s in files of {file_rows:,} ÷ {1 / one:,.0f} one by one"
    return [name, at_least(sum(single) / len(single) / (sum(bulk) / len(bulk)), BULK_TIMES)]


def _posted(app: Server, connection: HTTPConnection, path: str, body: str, kind: str) -> float:
    """The seconds until it is answered."""
    began = perf_counter()
    connection.request("POST", path, body.encode(), {"Content-Type": kind, "Authorization": app.authorization})
    response = connection.getresponse()
    answer = response.read()
    if response.status not in {200, 201} or json.loads(answer).get("failed"):
        raise SetupError(f"{path} was answered {response.status}: {answer[:500].decode()}")
    return perf_counter() - began


def _deep_page(app: Server, sort: str, products: int, samples: int) -> Row:
    """Read a deep page and the first one in turn."""
    page = min(DEEP_PAGE, products // PAGE_ROWS)
    first = f"/api/products?sort={sort}&limit={PAGE_ROWS}"
    with pinned(DRIVER_CORES), closing(HTTPConnection(LOOPBACK, app.port, timeout=30)) as connection:
        deep = path_of_page(app.port, first, page)
        times: dict[str, list[float]] = {first: [], deep: []}
        for _ in range(samples):
            for path, seconds in times.items():
                began = perf_counter()
                body_of(connection, path)
                seconds.append(perf_counter() - began)
    milliseconds = median(times[deep]) * 1e3
    name = f"pages by {sort}: page {page:,} ÷ page 1 (median of {samples}, {milliseconds:.1f} ms)"
    return [name, at_most(median(times[deep]) / median(times[first]), DEEP_LIMIT)]


def path_of_page(port: int, first: str, page: int) -> str:
    """Follow the cursors from the first page of a list; returns the path of that page."""
    path = first
    with closing(HTTPConnection(LOOPBACK, port, timeout=30)) as connection:
        for _ in range(page - 1):
            found = NEXT_CURSOR.search(body_of(connection, path))
            if found is None:
                raise SetupError(f"{first} ends before page {page:,}.")
            path = f"{first}&cursor={found[1].decode()}"
    return path
