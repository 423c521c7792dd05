"""Tags, with and without parameters."""

import re
from dataclasses import FrozenInstanceError
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.cache import Cache, Tag
from plinth.cache.tags import names_of

PRODUCTS, PRODUCT, REVIEW = Tag("products"), Tag("product:{id}"), Tag("product:{id}:review:{number}")


def test_a_tag_without_parameters_is_used_as_it_is() -> None:
    assert (PRODUCTS.name, PRODUCTS.parameters, PRODUCTS()) == ("products", (), PRODUCTS)
    assert repr(PRODUCTS) == "Tag('products')"


def test_a_tag_is_filled_in_by_position_or_by_name() -> None:
    assert PRODUCT(5).name == PRODUCT(id="5").name == "product:5"
    assert REVIEW(5, 2) == REVIEW(number=2, id=5) == Tag("product:5:review:2")
    assert PRODUCT(UUID(int=1)).name == f"product:{UUID(int=1)}"
    assert REVIEW.parameters == ("id", "number")


pairs = st.tuples(st.text(max_size=5), st.text(max_size=5))


@given(one=pairs, other=pairs)
def test_different_values_make_different_tags(one: tuple[str, str], other: tuple[str, str]) -> None:
    try:
        names = {REVIEW(*values).name for values in (one, other)}
    except UnicodeEncodeError:  # half a surrogate pair, which no request can contain
        return
    assert len(names) == len({one, other})
    for name in names:
        assert re.fullmatch(r"product:[^:/{}]*:review:[^:/{}]*", name)


@pytest.mark.parametrize(
    ("tag", "values", "named", "reason"),
    [
        (PRODUCT, (), {}, "missing a required argument: 'id'"),
        (PRODUCT, (1, 2), {}, "too many positional arguments"),
        (PRODUCT, (), {"number": 1}, "missing a required argument: 'id'"),
        (PRODUCT, (1,), {"number": 1}, "unexpected keyword argument 'number'"),
        (PRODUCTS, (1,), {}, "too many positional arguments"),
    ],
)
def test_wrong_parameters_are_refused(tag: Tag, values: tuple[Any, ...], named: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError, match=reason) as refused:
        tag(*values, **named)
    assert repr(tag) in str(refused.value)


@pytest.mark.parametrize("pattern", ["{", "a{0}", "a{}", "{a b}", "{id!r}", "{id:>5}", "{{a}}", 5])
def test_malformed_patterns_are_refused(pattern: Any) -> None:
    with pytest.raises(ValueError, match="expected text with parameters"):
        Tag(pattern)


async def test_a_tag_that_lacks_a_value_cannot_be_used(cache: Cache) -> None:
    async def load() -> int:
        raise AssertionError

    with pytest.raises(TypeError, match="call it with id"):
        await cache.invalidate(PRODUCTS, PRODUCT)
    with pytest.raises(TypeError, match="call it with id"):
        await cache.remember("product", 60, load, schema=int, tags=[PRODUCT])


def test_only_tags_are_tags() -> None:
    text: Any = "products"
    assert names_of([PRODUCTS, PRODUCT(5)]) == ("products", "product:5")
    with pytest.raises(TypeError, match=re.escape("declare Tag('products') once")):
        names_of([text])


def test_a_tag_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PRODUCTS.pattern = "others"  # type: ignore[misc]
