"""Column types that SQLAlchemy does not have."""

from decimal import Decimal

from sqlalchemy import BigInteger, Dialect
from sqlalchemy.types import TypeDecorator


class Money(TypeDecorator[Decimal]):
    """An amount with two places, stored as integer minor units: 19.90 is 1990. Adds up without rounding."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Raises ValueError for a fraction of a minor unit: rounding is a decision of the business."""
        if value is None:
            return None
        minor_units = value.scaleb(2)
        if minor_units != minor_units.to_integral_value():
            raise ValueError(f"{value} has more than two decimal places")
        return int(minor_units)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value).scaleb(-2)
