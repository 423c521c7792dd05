"""Column types that SQLAlchemy does not have."""

from decimal import Decimal

from sqlalchemy import BigInteger, Dialect
from sqlalchemy.types import TypeDecorator

from plinth.errors import AppError

MINOR_UNIT = Decimal("0.01")
LARGEST = Decimal(2**63 - 1).scaleb(-2)


class AmountError(AppError, ValueError):
    """What Money cannot store. It reaches the client as a sentence: its request named the amount."""


class Money(TypeDecorator[Decimal]):
    """An amount with two places, stored as integer minor units: 19.90 is 1990. Adds up without rounding."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Raises AmountError, for a fraction of a minor unit too: rounding is a decision of the business."""
        if value is None:
            return None
        # An int might be meant as major or as minor units, and a float is inexact.
        if not isinstance(value, Decimal):
            raise AmountError(
                f"An amount is a decimal number such as Decimal('19.90'), and not the {type(value).__name__} {value!r}."
            )
        if not value.is_finite() or abs(value) > LARGEST:
            raise AmountError(f"The amount {value} is not between -{LARGEST} and {LARGEST}.")
        rounded = value.quantize(MINOR_UNIT)
        if rounded != value:
            raise AmountError(f"The amount {value} has more than two decimal places.")
        return int(rounded.scaleb(2))

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value).scaleb(-2)
