"""The types of values in requests, each with the error message for a wrong one.

Requests are validated strictly: Python's `date` or an `Enum` would refuse the text that JSON has for it, so use these.
A field may narrow each: `Annotated[Text, Field(max_length=3, pattern="^[A-Z]+$")]`, `Annotated[Id, Field(le=9)]`.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import Field, WithJsonSchema
from typing_extensions import TypeAliasType

from app.schemas.wire import ByValue, InJSON, whole

# Spelled out, because \s and \w differ between Python and JSON Schema.
VISIBLE = re.compile(r"[^\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u2060\u3000\ufeff]")
AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?")
# What a browser takes for <input type=email>: https://html.spec.whatwg.org/#valid-e-mail-address. Whether mail arrives
# there, only sending one shows.
_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
EMAIL = re.compile(rf"[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(\.{_LABEL})*")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DECIMAL = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,4})?")
INSTANT = re.compile(
    rf"{DATE.pattern}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
HEX = "[0-9a-fA-F]"
ID = re.compile(f"{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}")


def text_with(character: re.Pattern[str]) -> str:
    """The JSON Schema pattern of text without NUL that contains such a character."""
    return rf"^[^\x00]*{character.pattern}[^\x00]*$"


def _storable(text: str) -> str:
    """Refuse text that JSON can express and PostgreSQL cannot store."""
    if "\x00" in text:
        raise ValueError("Text cannot hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("Text cannot hold half of a surrogate pair") from None
    return text


def _visible(text: str) -> str:
    if not VISIBLE.search(_storable(text)):
        raise ValueError("Text must hold a visible character")
    return text


def _email(text: str) -> str:
    if not EMAIL.fullmatch(text):
        raise ValueError('An email address is written like "ada@example.com"')
    return text


def _parser(kind: type, pattern: re.Pattern[str], parse: Callable[[str], Any], sentence: str) -> Callable[[Any], Any]:
    """Of text that matches; a value that is of this kind already is taken as it is."""

    def parsed(value: Any) -> Any:
        if type(value) is kind:
            return value
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(sentence)
        try:
            return parse(value)
        except (ValueError, OverflowError):  # the 30th of February, or an instant outside of the years 1 to 9999
            raise ValueError(sentence) from None

    return parsed


def _amount(value: object) -> Decimal:
    if not isinstance(value, str) or not AMOUNT.fullmatch(value):
        raise ValueError('An amount is a string of digits with at most two decimal places, such as "19.90"')
    return Decimal(value).quantize(Decimal("0.01"))


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str) or not DECIMAL.fullmatch(value):
        raise ValueError('A decimal number is a string of digits with at most four decimal places, such as "0.0825"')
    return Decimal(value).quantize(Decimal("0.0001"))


_date = _parser(date, DATE, date.fromisoformat, 'A date is a string such as "2026-11-28"')
_instant = _parser(
    datetime,
    INSTANT,
    lambda text: datetime.fromisoformat(text.upper()).astimezone(UTC),
    'An instant is a string with an offset from UTC, such as "2026-11-28T09:30:00Z"',
)
_uuid = _parser(UUID, ID, UUID, 'A UUID is a string such as "2c1e6f0a-5d43-4b1e-9c57-3f8a6d2b7e10"')

Text = Annotated[str, InJSON(check=_storable, pattern=r"^[^\x00]*$")]
VisibleText = Annotated[str, Field(min_length=1), InJSON(check=_visible, pattern=text_with(VISIBLE))]
Email = Annotated[str, Field(max_length=254), InJSON(check=_email, pattern=f"^{EMAIL.pattern}$")]

# Money is a decimal string in JSON: many clients read a JSON number as a float.
Amount = Annotated[
    Decimal,
    InJSON(_amount, shown={"type": "string", "pattern": f"^{AMOUNT.pattern}$", "examples": ["19.90"]}),
]
Price = Annotated[Decimal, WithJsonSchema({"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}$", "examples": ["19.90"]})]

# Exact, for rates and quantities: the columns are Numeric(16, 4).
DecimalNumber = Annotated[
    Decimal,
    InJSON(_decimal, shown={"type": "string", "pattern": f"^{DECIMAL.pattern}$", "examples": ["0.0825"]}),
]

# Beyond 2**53 - 1 not every client can represent integers (RFC 8259 §6).
Id = Annotated[int, Field(ge=1, le=2**53 - 1), InJSON(whole)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1), InJSON(whole)]
Integer = Annotated[int, Field(ge=-(2**31), le=2**31 - 1), InJSON(whole)]

# Dates and instants are those of RFC 3339; an instant becomes one in UTC.
Date = Annotated[date, InJSON(_date)]
Instant = Annotated[datetime, InJSON(_instant)]
Uuid = Annotated[UUID, InJSON(_uuid)]

# An object with anything that a client keeps in it. PostgreSQL's jsonb takes neither NUL characters nor NaN.
JsonValue = TypeAliasType(
    "JsonValue", "Json | list[JsonValue] | Text | bool | int | Annotated[float, Field(allow_inf_nan=False)] | None"
)
Json = Annotated[dict[Text, JsonValue], Field(json_schema_extra={"propertyNames": {"pattern": r"^[^\x00]*$"}})]

# One of the values of an enum: `status: Choice[Status]`.
EnumT = TypeVar("EnumT", bound=Enum)
Choice = Annotated[EnumT, ByValue()]
