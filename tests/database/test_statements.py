from uuid import UUID, uuid4

from sqlalchemy import Column, Integer, MetaData, Table, Text, Uuid, bindparam, insert, update

from app.database import Change

ORDERS = Table(
    "orders",
    MetaData(),
    Column("id", Uuid, primary_key=True, default=uuid4),
    Column("state", Text, default="new", onupdate="changed"),
    Column("items", Integer),
)


def test_a_default_that_python_makes_is_made_for_each() -> None:
    change = Change(int, insert(ORDERS).values(items=bindparam("items")))
    one, other = change.arguments({"items": 5}), change.arguments({"items": 5})
    assert [type(value) for value in one] == [UUID, str, int]
    assert one[1:] == other[1:] == ["new", 5]
    assert one[0] != other[0]


def test_a_value_that_is_named_needs_no_default() -> None:
    change = Change(int, insert(ORDERS).values(state=bindparam("state"), items=7))
    assert change.arguments({"state": "old"})[1:] == ["old", 7]


def test_an_update_has_defaults_of_its_own() -> None:
    assert Change(int, update(ORDERS).values(items=bindparam("items"))).arguments({"items": 5}) == ["changed", 5]
