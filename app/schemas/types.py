"""The types of values in requests, each with the error message for a wrong one."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

# Spelled out, because \s and \w differ between Python and JSON Schema.
VISIBLE = re.compile(r"[^\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f\u2060\u3000\ufeff]")
AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?")


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
    if not VISIBLE.search(text):
        raise ValueError("Text must hold a visible character")
    return text


def _amount(value: object) -> Decimal:
    if not isinstance(value, str) or not AMOUNT.fullmatch(value):
        raise ValueError('An amount is a string of digits with at most two decimal places, such as "19.90"')
    return Decimal(value).quantize(Decimal("0.01"))


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, AfterValidator(_storable), Field(json_schema_extra={"pattern": r"^[^\x00]*$"})]
VisibleText = Annotated[
    str,
    AfterValidator(_storable),
    AfterValidator(_visible),
    Field(min_length=1, json_schema_extra={"pattern": text_with(VISIBLE)}),
]

# Money is a decimal string in JSON: many clients read a JSON number as a float.
Amount = Annotated[
    Decimal,
    PlainValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": f"^{AMOUNT.pattern}$", "examples": ["19.90"]}),
]
Price = Annotated[Decimal, WithJsonSchema({"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}$", "examples": ["19.90"]})]

# JSON has one type of number, in which 5.0 is 5. Beyond 2**53 - 1 not every client can represent integers
# (RFC 8259 §6). The bounds come first, because Pydantic leaves them out of the JSON schema otherwise.
Id = Annotated[int, Field(ge=1, le=2**53 - 1), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_whole)]
