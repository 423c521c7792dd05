"""What a Query accepts, and that its compiled form reads what SQLAlchemy's own execution of the statement reads."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, Text, bindparam, func, insert, literal, select, tuple_, update

from plinth.database import Database, Query
from tests.plinth.database.tables import Colour, Everything, Thing

ORDERS = Table("orders", MetaData(), Column("id", Integer), Column("state", Text), Column("size", Integer))


class Order(NamedTuple):
    id: int
    state: str
    size: int = 0


@dataclass
class OrderData:
    id: int
    state: str


@pytest.mark.parametrize("row", [Order, OrderData])
def test_the_columns_have_the_names_of_the_fields(row: Callable[..., object]) -> None:
    Query(row, select(ORDERS.c.id, ORDERS.c.state))
    for wrong in (
        [ORDERS.c.state, ORDERS.c.id],  # swapped
        [ORDERS.c.id],  # one is missing
        [ORDERS.c.id, ORDERS.c.state.label("status")],
        [ORDERS.c.id, ORDERS.c.state, ORDERS.c.size.label("more")],
    ):
        with pytest.raises(TypeError, match="The columns are"):
            Query(row, select(*wrong))


def test_several_columns_need_a_row_with_names() -> None:
    assert Query(int, select(ORDERS.c.id))
    with pytest.raises(TypeError, match="needs a NamedTuple or a dataclass"):
        Query(lambda *row: row, select(ORDERS.c.id, ORDERS.c.size))


@pytest.mark.parametrize(
    "statement",
    [
        insert(ORDERS).values(id=1).returning(ORDERS.c.id),
        update(ORDERS).values(id=1).returning(ORDERS.c.id),
        select(insert(ORDERS).values(id=1).returning(ORDERS.c.id).cte().c.id),
        select(literal(1)).where(select(update(ORDERS).values(id=1).returning(ORDERS.c.id).cte().c.id).exists()),
    ],
)
def test_a_statement_that_changes_something_is_refused(statement: Any) -> None:
    with pytest.raises(TypeError, match="A Query is a SELECT"):
        Query(int, statement)


def test_a_parameter_with_a_value_may_be_given_another() -> None:
    query = Query(int, select(ORDERS.c.size).where(ORDERS.c.size > bindparam("least", 5), ORDERS.c.state == "new"))
    assert [query.bind({})[1], query.bind({"least": 7})[1]] == [[5, "new"], [7, "new"]]


def test_names_that_do_not_fit_are_refused() -> None:
    query = Query(int, select(ORDERS.c.size).where(ORDERS.c.size > bindparam("least")))
    with pytest.raises(TypeError, match="no parameter sise"):
        query.bind({"least": 5, "sise": 6})
    with pytest.raises(KeyError, match="least"):
        query.bind({})


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("key_share", [False, True])
async def test_a_locking_clause_needs_a_transaction(database: Database, read: bool, key_share: bool) -> None:
    query = Query(int, select(Thing.id).with_for_update(read=read, key_share=key_share))
    nested = Query(int, select(func.count()).select_from(query.statement.subquery()))
    for each in (query, nested):
        with pytest.raises(TypeError, match="locking clause"):
            await database.reads.all(each)
        async with database.sessions.begin() as session:
            await session.all(each)


class Comparison(NamedTuple):
    id: int
    amount: Decimal | None
    colour: Colour | None


COLUMNS = select(Everything.id, Everything.amount, Everything.colour).order_by(Everything.id)
AMOUNTS = st.decimals(0, 5, places=2)
VALUES = {
    "id": st.integers(0, 9),
    "ids": st.lists(st.integers(0, 9), max_size=5),
    "least": AMOUNTS,
    "amounts": st.lists(AMOUNTS, max_size=3),
    "colours": st.lists(st.sampled_from(Colour), max_size=2),
    "pairs": st.lists(st.tuples(st.integers(0, 9), AMOUNTS), max_size=3),
}


def expanding(name: str) -> Any:
    return bindparam(name, expanding=True)


CONDITIONS: dict[str, tuple[Any, list[str]]] = {
    "in": (Everything.id.in_(expanding("ids")), ["ids"]),
    "not in": (Everything.id.not_in(expanding("ids")), ["ids"]),
    "in, of a type": (Everything.amount.in_(expanding("amounts")), ["amounts"]),
    "in, of an enum": (Everything.colour.in_(expanding("colours")), ["colours"]),
    "in, of pairs": (tuple_(Everything.id, Everything.amount).in_(expanding("pairs")), ["pairs"]),
    "in, of literals": (Everything.id.in_([1, 2, 3]), []),
    "in, of nothing": (Everything.id.in_([]), []),
    "in, and more": (Everything.id.in_(expanding("ids")) & (Everything.amount >= bindparam("least")), ["ids", "least"]),
    "twice": ((Everything.id == bindparam("id")) | (Everything.id == bindparam("id") + 1), ["id"]),
    "default": (Everything.amount >= bindparam("least", Decimal("1.50"), type_=Everything.amount.type), []),
}


@pytest.fixture
async def filled(database: Database) -> Database:
    rows = [{"amount": Decimal(number) / 2, "colour": [*Colour][number % 2]} for number in range(9)]
    async with database.sessions.begin() as session:
        await session.execute(insert(Everything), rows)
    return database


@pytest.mark.parametrize("name", CONDITIONS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.fixed_dictionaries(VALUES))
async def test_a_condition_selects_what_sqlalchemy_selects(
    filled: Database, name: str, values: dict[str, object]
) -> None:
    condition, names = CONDITIONS[name]
    parameters = {name: values[name] for name in names}
    query = Query(Comparison, COLUMNS.where(condition))
    async with filled.sessions.begin() as session:
        expected = [Comparison(*row) for row in await session.execute(query.statement, parameters)]
    assert await filled.reads.all(query, **parameters) == expected
