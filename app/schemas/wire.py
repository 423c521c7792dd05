"""How a type of value stands in JSON, for validation and for the OpenAPI document alike."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema, to_jsonable_python

# What Pydantic writes into the document for a bound that it checks after a function, and what JSON Schema calls it.
_BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
# JSON Schema bounds numbers only. These are the names for strings such as dates, which a client may understand.
_BOUNDS_OF_STRINGS = {name: f"format{keyword[0].upper()}{keyword[1:]}" for name, keyword in _BOUNDS.items()}


@dataclass(frozen=True, eq=False)
class InJSON:
    """Annotates a type: `parse` makes its value from what JSON has, and `check` refuses some. Both raise ValueError.

    A field may add constraints, as in `Annotated[Text, Field(pattern="^[A-Z]+$")]`. Pydantic checks those after the
    functions and leaves them out of the document; this class adds them. `shown` is what the type itself has there.
    """

    parse: Callable[[Any], Any] | None = None
    check: Callable[[Any], Any] | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    pattern: str | None = None
    """Matches every text that `check` takes, and no other."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if self.parse:
            schema = core_schema.no_info_before_validator_function(self.parse, schema)
        return core_schema.no_info_after_validator_function(self.check, schema) if self.check else schema

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        inner = handler(schema)
        patterns = [inner.get("pattern"), *(each.get("pattern") for each in inner.get("allOf", ()))]
        if self.shown:
            inner = {**self.shown, **{key: value for key, value in inner.items() if key in _BOUNDS}}
        others = dict.fromkeys([*_patterns(schema), *patterns, self.pattern, inner.get("pattern")])
        first, *more = [each for each in others if each] or [None]
        if first:
            inner |= {"pattern": first}
        if more:
            inner |= {"allOf": [{"pattern": each} for each in more]}
        return _with_bounds(inner)


class ByValue:
    """Annotates an enum: JSON has the value of a member."""

    def __get_pydantic_core_schema__(self, source: type[Enum], handler: GetCoreSchemaHandler) -> CoreSchema:
        # As the OpenAPI document shows them: a decimal is a string there.
        members = [(whole(to_jsonable_python(member.value)), member) for member in source]
        expected = " or ".join(repr(shown) for shown, _ in members)

        def parse(value: Any) -> Enum:
            if isinstance(value, source):
                return value
            value = whole(value)
            member = next((each for shown, each in members if type(shown) is type(value) and shown == value), None)
            if member is None:
                raise ValueError(f"This should be {expected}")
            return member

        return core_schema.no_info_before_validator_function(parse, handler(source))


def whole(value: object) -> object:
    """JSON has one type of number, in which 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _patterns(schema: Any) -> Iterator[str]:
    """The patterns that are checked after a function."""
    for step in schema.get("steps", ()):
        yield from _patterns(step)
    if isinstance(schema.get("schema"), dict):
        yield from _patterns(schema["schema"])
    if pattern := schema.get("pattern"):
        yield getattr(pattern, "pattern", pattern)


def _with_bounds(inner: dict[str, Any]) -> dict[str, Any]:
    if "multiple_of" in inner:
        inner["multipleOf"] = inner.pop("multiple_of")
    bounds = {name: inner.pop(name) for name in _BOUNDS if name in inner}
    for name, bound in bounds.items():
        if inner.get("type") == "string":
            inner[_BOUNDS_OF_STRINGS[name]] = bound
            if (name, bound) == ("gt", 0):  # of an amount
                inner["not"] = {"pattern": r"^[0.]*$"}
        else:
            tighter = max if name.startswith("g") else min
            inner[_BOUNDS[name]] = tighter(inner.get(_BOUNDS[name], bound), bound)
    return inner
