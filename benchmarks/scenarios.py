"""The requests that are sent to every server, as lines of `METHOD path body` or `GET path header`, and the targets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from random import Random
from urllib.parse import quote_plus

import orjson

from app.example_data import SERIES

NOUNS = ("Laptop", "Monitor", "Keyboard", "Mouse", "Headset", "Drive")
CREATED_PREFIX = "BENCH-"  # of the sku of products that a benchmark creates


@dataclass(frozen=True)
class Scenario:
    name: str
    lines: Callable[[Random, int, int], Iterator[str]]
    """Takes a random generator, the number of products in the table, and the number of lines wanted."""
    floors: str = "BC"
    """The letters of the floors that are measured with it."""
    against: str = "C"
    """The floor that the target is relative to."""
    limit: float | None = None
    """Target: CPU per request of the app is at most this many times that of the floor."""
    stretch: float | None = None
    """The same, if all goes well."""
    in_usual: bool = True
    """Whether the usual template has this endpoint."""
    ahead: float | None = None
    """Target: CPU per request of the usual template is at least this many times that of the app."""
    writes: bool = False
    fresh: bool = False
    """Whether each round sends other requests than those before it."""


def _ping(_random: Random, _products: int, count: int) -> Iterator[str]:
    return repeat("GET /health/live", count)


def _by_id(random: Random, products: int, count: int) -> Iterator[str]:
    return (f"GET /api/products/{random.randint(1, products)}" for _ in range(count))


def _search(random: Random, _products: int, count: int) -> Iterator[str]:
    series = SERIES.split()
    words = (f"{random.choice(series)} {random.choice(NOUNS)}" for _ in range(count))
    return (f"GET /api/products/search?q={quote_plus(text.lower())}" for text in words)


def _first_page(_random: Random, _products: int, count: int) -> Iterator[str]:
    return repeat("GET /api/products", count)


def _create(random: Random, _products: int, count: int) -> Iterator[str]:
    for _ in range(count):
        product = {
            "sku": f"{CREATED_PREFIX}{random.getrandbits(48):012x}",
            "name": "Zenith 15 Workstation, 64 GB, 2 TB",
            "description": "A product that a benchmark creates and removes; its text has the usual length.",
            "price": f"{random.randint(100, 3000)}.95",
            "stock": random.randint(0, 500),
            "category_id": random.randint(1, 12),
        }
        yield f"POST /api/products {orjson.dumps(product).decode()}"


def _update(random: Random, products: int, count: int) -> Iterator[str]:
    for _ in range(count):
        yield f'PATCH /api/products/{random.randint(1, products)} {{"stock":{random.randint(0, 500)}}}'


PING = Scenario("ping", _ping, floors="AC", limit=1.1)
BY_ID = Scenario("product by id", _by_id, limit=1.25, stretch=1.1, ahead=4)
SEARCH = Scenario("search", _search, limit=1.2, in_usual=False)
LIST = Scenario("list of 20", _first_page, limit=1.25, stretch=1.1, ahead=3)
CREATE = Scenario("create", _create, floors="B", against="B", limit=4.5, ahead=2, writes=True)
UPDATE = Scenario("update", _update, floors="B", against="B", limit=6, ahead=1.5, writes=True)

SCENARIOS = (PING, BY_ID, SEARCH, LIST, CREATE, UPDATE)
