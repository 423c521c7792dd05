from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, func, insert, literal, select
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.types import BigInteger

from plinth.database import Database, Money, Query, Session
from plinth.errors import AppError
from tests.plinth.database.tables import Thing


class Both(NamedTuple):
    amount: Decimal
    raw: int


DIALECT = PGDialect()  # type: ignore[no-untyped-call]
AMOUNTS = st.decimals(min_value=Decimal("-9999999999.99"), max_value=Decimal("9999999999.99"), places=2)


@given(amount=AMOUNTS)
def test_money_goes_through_minor_units_unchanged(amount: Decimal) -> None:
    stored = Money().process_bind_param(amount, DIALECT)
    assert stored == int(amount * 100)
    loaded = Money().process_result_value(stored, DIALECT)
    assert loaded == amount
    assert len(str(loaded).partition(".")[2]) == 2


@given(amount=st.decimals(min_value=-1000, max_value=1000, places=3).filter(lambda amount: amount * 100 % 1))
def test_money_refuses_a_fraction_of_a_minor_unit(amount: Decimal) -> None:
    with pytest.raises(ValueError, match="more than two decimal places"):
        Money().process_bind_param(amount, DIALECT)


NO_AMOUNTS = {
    "int": 5,
    "bool": True,
    "float": 19.9,
    "text": "19.90",
    "NaN": Decimal("NaN"),
    "infinity": Decimal("-Infinity"),
    "more than a bigint": Decimal("92233720368547758.08"),
    "far more": Decimal("1E+40"),
    "a thousandth": Decimal("0.001"),
    "more digits than Python's context has": Decimal("1." + "0" * 40 + "1"),
}


@pytest.mark.parametrize("name", NO_AMOUNTS)
async def test_what_money_cannot_store_is_a_sentence_however_it_gets_there(database: Database, name: str) -> None:
    """Not an AttributeError or an error of the driver, which would be a 500."""
    value = NO_AMOUNTS[name]
    query = Query(repr, select(Thing.id).where(Thing.amount == bindparam("amount")))

    async def by_entity(session: Session) -> None:
        session.add(Thing(label="one", amount=value))
        await session.flush()

    async def by_statement(session: Session) -> None:
        await session.execute(insert(Thing).values(label="one", amount=value))

    async def by_query(session: Session) -> None:
        await session.first(query, amount=value)

    for store in (by_entity, by_statement, by_query):
        with pytest.raises(AppError, match=r"^(An amount is a decimal number|The amount ).+\.$"):
            async with database.sessions.begin() as session:
                await store(session)
    with pytest.raises(AppError, match=r"^(An amount is a decimal number|The amount ).+\.$"):
        await database.reads.first(query, amount=value)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amount=AMOUNTS)
async def test_money_goes_through_postgresql_unchanged(database: Database, amount: Decimal) -> None:
    both = select(
        literal(amount, Money).label("amount"), func.abs(literal(amount, Money), type_=BigInteger).label("raw")
    )
    assert await database.reads.first(Query(Both, both)) == (amount, abs(int(amount * 100)))


async def test_no_money_is_null(database: Database) -> None:
    nothing = select(literal(None, Money))
    assert await database.reads.first(Query(repr, nothing)) == "None"
