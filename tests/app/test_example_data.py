"""The example catalogue is the same everywhere, believable, and within what the tables take."""

from collections import Counter
from hashlib import sha256
from itertools import islice

import pytest

from app.example_data import ProductRow, categories, products

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
