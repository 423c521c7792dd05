from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, Uuid, bindparam, insert, select, update

from plinth.database import Change, Query

ORDERS = Table(
    "orders",
    MetaData(),
    Column("id", Uuid, primary_key=True, default=uuid4),
    Column("state", Text, default="new", onupdate="changed"),
    Column("size", Integer),
)


def test_a_default_that_python_makes_is_made_for_each() -> None:
    change = Change(int, insert(ORDERS).values(size=bindparam("size")))
    one, other = change.arguments({"size": 5}), change.arguments({"size": 5})
    assert [type(value) for value in one] == [UUID, str, int]
    assert one[1:] == other[1:] == ["new", 5]
    assert one[0] != other[0]


def test_a_value_that_is_named_needs_no_default() -> None:
    change = Change(int, insert(ORDERS).values(state=bindparam("state"), size=7))
    assert change.arguments({"state": "old"})[1:] == ["old", 7]


def test_an_update_has_defaults_of_its_own() -> None:
    assert Change(int, update(ORDERS).values(size=bindparam("size"))).arguments({"size": 5}) == ["changed", 5]


def test_a_parameter_with_a_value_may_be_given_another() -> None:
    query = Query(int, select(ORDERS.c.size).where(ORDERS.c.size > bindparam("least", 5), ORDERS.c.state == "new"))
    assert [query.arguments({}), query.arguments({"least": 7})] == [[5, "new"], [7, "new"]]


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(TypeError, match="no parameter sise"):
        Change(int, update(ORDERS).values(size=bindparam("size"))).arguments({"size": 5, "sise": 6})


@pytest.mark.parametrize("values", [[1, 2], bindparam("values", expanding=True)], ids=["literal", "parameter"])
def test_a_list_of_any_length_is_refused(values: Any) -> None:
    with pytest.raises(TypeError, match="any_"):
        Query(int, select(ORDERS.c.id).where(ORDERS.c.size.in_(values))).arguments({})
