"""What is asked of every server: lines of `METHOD path body`, or `GET path header`, the same for floors and app."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from random import Random
from urllib.parse import quote_plus

import orjson

from app.example_data import SERIES

NOUNS = ("Laptop", "Monitor", "Keyboard", "Mouse", "Headset", "Drive")
MARK = "BENCH-"  # begins the sku of what is created here


@dataclass(frozen=True)
class Scenario:
    name: str
    lines: Callable[[Random, int, int], Iterator[str]]
    """Of a source of chance, the number of products, and the number of lines wanted."""
    floors: str = "BC"
    against: str = "C"
    """The floor that its cost is compared with."""
    limit: float | None = None
    """The target: at most this many times the CPU of that floor."""
    writes: bool = False


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
            "sku": f"{MARK}{random.getrandbits(48):012x}",
            "name": "Zenith 15 Workstation, 64 GB, 2 TB",
            "description": "Made to be measured: it comes with a serial number and leaves without a trace.",
            "price": f"{random.randint(100, 3000)}.95",
            "stock": random.randint(0, 500),
            "category_id": random.randint(1, 12),
        }
        yield f"POST /api/products {orjson.dumps(product).decode()}"


def _update(random: Random, products: int, count: int) -> Iterator[str]:
    for _ in range(count):
        yield f'PATCH /api/products/{random.randint(1, products)} {{"stock":{random.randint(0, 500)}}}'


PING = Scenario("ping", _ping, floors="AC")
BY_ID = Scenario("product by id", _by_id, limit=1.3)
SEARCH = Scenario("search", _search, limit=1.3)
LIST = Scenario("list of 20", _first_page, limit=1.15)
CREATE = Scenario("create", _create, floors="B", against="B", limit=2.5, writes=True)
UPDATE = Scenario("update", _update, floors="B", against="B", limit=2.5, writes=True)

SCENARIOS = (PING, BY_ID, SEARCH, LIST, CREATE, UPDATE)
