"""The example catalogue is the same everywhere, believable, and within what the tables take."""

import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import islice

import asyncpg
import pytest
from anyio import to_thread

from app.example_data import ProductRow, categories, products
from plinth.testing.environment import child_environment
from tests.app.test_cli import run

COUNT = 10_000
CATEGORIES = [name for name, _ in categories()]


@pytest.fixture(scope="module")
def rows() -> list[ProductRow]:
    return list(products(COUNT))


def test_first_thousand_never_change() -> None:
    text = "\n".join(map(repr, products(1000)))
    assert sha256(text.encode()).hexdigest() == "8c4e30aa529b98f1be9cda3ceed1a349fa4785d74a4f5ac352d68d40dbf52436"


def test_a_longer_list_begins_with_the_shorter(rows: list[ProductRow]) -> None:
    assert list(products(500)) == rows[:500]
    assert list(islice(products(10**9), 500)) == rows[:500]


def test_skus_are_unique(rows: list[ProductRow]) -> None:
    assert len({sku for sku, *_ in rows}) == COUNT
    assert rows[41][0].endswith("-000042")


def test_categories_have_a_name_and_a_description_each() -> None:
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 12
    assert all(0 < len(name) <= 100 and description.endswith(".") for name, description in categories())


def test_values_fit_the_tables(rows: list[ProductRow]) -> None:
    for sku, name, description, price, stock, place in rows:
        assert 0 < len(sku) <= 64
        assert 0 < len(name) <= 200
        assert 0 < len(description) <= 2000
        assert 0 < price < 10**9
        assert 0 <= stock <= 10_000
        assert 0 <= place < len(CATEGORIES)


def test_prices_look_like_prices(rows: list[ProductRow]) -> None:
    assert {price % 100 for _, _, _, price, _, _ in rows} == {0, 49, 95, 99}


def test_descriptions_are_one_to_three_whole_sentences(rows: list[ProductRow]) -> None:
    for _, _, description, _, _, _ in rows:
        assert description[0].isupper()
        assert description.endswith(".")
        assert 1 <= len(description.split(". ")) <= 3
        assert not set(description) & set("{}|/")


def test_descriptions_are_varied(rows: list[ProductRow]) -> None:
    assert len({description for _, _, description, _, _, _ in rows}) > 0.9 * COUNT


def test_proportions(rows: list[ProductRow]) -> None:
    sold_out = sum(stock == 0 for _, _, _, _, stock, _ in rows)
    assert 0.07 * COUNT < sold_out < 0.09 * COUNT
    by_category = Counter(CATEGORIES[place] for *_, place in rows)
    assert 0.14 * COUNT < by_category["Laptops"] < 0.16 * COUNT
    assert min(by_category.values()) > 0.03 * COUNT


def test_laptops_are_called_so(rows: list[ProductRow]) -> None:
    for sku, name, description, _, _, place in rows:
        if CATEGORIES[place] == "Laptops":
            assert sku.startswith("LAP-")
            assert " Laptop, " in name
            assert "laptop" in description


async def counts(onlooker: asyncpg.Connection) -> tuple[int, int]:
    row = await onlooker.fetchrow("SELECT (SELECT count(*) FROM categories), (SELECT count(*) FROM products)")
    return tuple(row)


async def test_seed_loads_ten_thousand_products_once(
    empty_tables: None, database_url: str, onlooker: asyncpg.Connection
) -> None:
    # However long the COPY takes: a request's limit is not for it.
    times = {"DATABASE_STATEMENT_TIMEOUT_SECONDS": "0.05", "DATABASE_SLOW_STATEMENT_SECONDS": "600"}
    first = run("seed", DATABASE_URL=database_url, APP_EXAMPLE_DATA="true", **times)
    assert (first.stdout, first.stderr) == ("Loaded 10,000 products.\n", "")
    loaded = await counts(onlooker)
    assert loaded == (loaded[0], 10_000)
    assert await onlooker.fetchval("SELECT count(*) FROM products WHERE name LIKE '%Laptop%'") > 1000
    again = run("seed", DATABASE_URL=database_url, APP_EXAMPLE_DATA="true")
    assert (again.returncode, again.stdout) == (0, "There is a catalogue already; nothing was loaded.\n")
    assert await counts(onlooker) == loaded


def seed_on_a_terminal(products: int, **environment: str) -> tuple[str, bytes]:
    """What is printed on standard output, and on the terminal that standard error is."""
    reader, terminal = os.openpty()
    command = [sys.executable, "-m", "app", "seed", f"--products={products}"]
    environment = child_environment(APP_EXAMPLE_DATA="true", **environment)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=terminal, text=True) as seeding:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # the end of a terminal
            while read := os.read(reader, 4096):
                shown += read
        os.close(reader)
        return seeding.communicate(timeout=300)[0], shown


async def test_seed_shows_its_progress_on_a_terminal(empty_tables: None, database_url: str) -> None:
    printed, shown = await to_thread.run_sync(partial(seed_on_a_terminal, 2000, DATABASE_URL=database_url))
    assert printed == "Loaded 2,000 products.\n"
    assert re.search(rb"Loading products  \[#+-+\].*\[#{36}\]  100%", shown, re.DOTALL), shown


async def test_seed_is_refused_unless_example_data_is_on(
    empty_tables: None, database_url: str, onlooker: asyncpg.Connection
) -> None:
    refused = run("seed", DATABASE_URL=database_url, APP_EXAMPLE_DATA="false")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Example data is off; set APP_EXAMPLE_DATA=true to load it.\n"
    assert await counts(onlooker) == (0, 0)


async def test_loading_it_goes_past_the_pooler_and_is_refused_in_one_sentence_without_a_database(
    empty_tables: None, database_url: str
) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    done = run("seed", APP_EXAMPLE_DATA="true", DATABASE_URL=nowhere, DATABASE_DIRECT_URL=database_url)
    assert done.returncode == 0, done.stderr
    failed = run("seed", APP_EXAMPLE_DATA="true", DATABASE_URL=nowhere, LOG_LEVEL="WARNING")
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert "database" in failed.stderr
