from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.types import BigInteger

from plinth.database import Database, Money, Query


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
