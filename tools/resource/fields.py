"""The fields of a resource: what each is in every layer, and the values that tests send."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

FIRST, SECOND = 7, 8  # the numbers in the values that tests send: the second value is the higher one
STR_LENGTH = 100


class Kind(NamedTuple):
    """A type of field: in Python, in the database, in requests (app/schemas/types.py), and in tests."""

    python: str
    column: str
    request: str
    sample: str  # {n} is a number, {words} the name of the field
    wrong: Sequence[str]  # expressions of values that are refused
    is_indexed: bool = True  # it may be, for filters
    is_unique: bool = True
    is_ordered: bool = True  # lists may be sorted by it
    response: str | None = None  # where it is not the type in Python


KINDS = {
    "str": Kind("str", "String({length})", "VisibleText", "{words} {n}", ["5", '""', '"x" * {too_long}']),
    "text": Kind("str", "Text", "Text", "{words} {n}", ["5", r'"\x00"'], is_indexed=False, is_unique=False),
    "int": Kind("int", "", "Integer", "", ['"1"', "1.5", "2**31"]),
    "decimal": Kind("Decimal", "Numeric(16, 4)", "DecimalNumber", "{n}.5000", ["1.5", '"0.00001"']),
    "money": Kind("Decimal", "Money", "Amount", "{n}.00", ["5", '"-1.00"', '"0.001"'], response="Price"),
    "bool": Kind("bool", "", "bool", "", ['"true"', "1"], is_unique=False, is_ordered=False),
    "date": Kind("date", "", "Date", "2026-01-1{n}", ['"2026-02-30"', "5"]),
    "datetime": Kind("datetime", "DateTime(timezone=True)", "Instant", "2026-01-01T09:30:0{n}Z", ['"2026-01-01"']),
    "uuid": Kind("UUID", "", "Uuid", "2c1e6f0a-5d43-4b1e-9c57-3f8a6d2b7e1{n}", ['"2c1e6f0a"', "5"]),
    "enum": Kind("{enum}", "", "Choice[{enum}]", "", ['"no such value"', "5"], is_unique=False, is_ordered=False),
    "json": Kind(
        "dict[str, Any]", "JSONB(none_as_null=True)", "Json", "", ["5", "[]"], is_indexed=False, is_unique=False
    ),
    "ref": Kind("int", "", "Id", "", ["0", '"1"', "10**6"], is_unique=False, is_ordered=False),
}


class Default(NamedTuple):
    python: str  # the expression in the schema
    stored: str  # what the database's default says
    shown: object  # in JSON


@dataclass(frozen=True)
class Field:
    name: str
    kind: str
    enum: str = ""  # the name of the type in the database
    labels: tuple[str, ...] = ()
    target: str = ""  # the plural of what it refers to
    is_self: bool = False  # refers to its own resource
    length: int = STR_LENGTH
    optional: bool = False
    unique: bool = False
    index: bool = False
    default: Default | None = None

    @property
    def column(self) -> str:
        return f"{self.name}_id" if self.kind == "ref" else self.name

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")

    @property
    def enum_class(self) -> str:
        return pascal(self.enum)

    @property
    def python(self) -> str:
        return self._or_none(KINDS[self.kind].python)

    @property
    def response(self) -> str:
        return self._or_none(KINDS[self.kind].response or KINDS[self.kind].python)

    @property
    def request(self) -> str:
        return KINDS[self.kind].request.format(enum=self.enum_class)

    @property
    def is_filter(self) -> bool:
        return self.unique or self.index or self.kind == "ref"

    @property
    def is_sort(self) -> bool:
        """Pages by keyset cannot be sorted by what may be NULL."""
        return (self.unique or self.index) and KINDS[self.kind].is_ordered and not self.optional

    @property
    def is_required(self) -> bool:
        return self.default is None and not self.optional

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters that filter by it, each with its comparison."""
        if not self.is_filter:
            return {}
        if self.kind in {"int", "decimal", "money", "date", "datetime"}:
            return {f"min_{self.name}": ">=", f"max_{self.name}": "<="}
        return {self.name: "=="}

    @property
    def sample(self) -> str:
        """The expression in tests/app/resources.py, which has another value for each number."""
        match self.kind:
            case "int":
                return "lambda n: n"
            case "bool":
                return "lambda n: n % 2 == 1"
            case "enum":
                return f"lambda n: {[*self.labels[:2]]}[n % 2]"
            case "json":
                return '{"key": "Value {n}"}'
            case "ref":
                return "None" if self.is_self else "1"
        return quoted(self._filled("{n}"))

    def value(self, number: int) -> object:
        """In JSON. It differs from one number to the next, and where there is an order, the higher one is higher."""
        match self.kind:
            case "int":
                return number
            case "bool":
                return number % 2 == 1
            case "enum":
                return self.labels[number % 2]
            case "json":
                return {"key": f"Value {number}"}
            case "ref":
                # Of its own kind there is none yet when the first is created; the second refers to itself.
                return [None, 1][number - FIRST] if self.is_self else number - FIRST + 1
        return self._filled(str(number))

    @property
    def wrong(self) -> list[str]:
        """Expressions of values that are refused in requests."""
        wrong = [each.replace("{too_long}", str(self.length + 1)) for each in KINDS[self.kind].wrong]
        return wrong if self.optional else ["None", *wrong]

    def _filled(self, number: str) -> str:
        words = self.words.capitalize()
        if self.kind == "str":
            words = words[: self.length - 2].strip()
        return KINDS[self.kind].sample.replace("{words}", words).replace("{n}", number)

    def _or_none(self, python: str) -> str:
        return python.format(enum=self.enum_class) + (" | None" if self.optional else "")


def quoted(text: str) -> str:
    """Printable text as a literal of Python, as ruff formats it."""
    return json.dumps(text, ensure_ascii=False)


def pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
