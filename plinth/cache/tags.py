"""Tags: what cached values depend on."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from inspect import Parameter, Signature
from typing import Protocol
from urllib.parse import quote

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_DIGITS = 400
"""Of a number that is written out: any float has fewer, and a client's `1E+999999999` is not expanded."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A name under which cached values are invalidated together.

    `PRODUCTS = Tag("products")` is used as it is. `PRODUCT = Tag("product:{id}")` has a parameter and is called to fill
    it in: `PRODUCT(5)`, or `PRODUCT(id=5)`. Equal values make one tag: `5`, `5.0` and `Decimal("5.00")`, an enum member
    and its value, one instant in two time zones. Values are percent-encoded, so a `:` or `/` in one cannot be mistaken
    for one of the pattern.
    """

    pattern: str

    def __post_init__(self) -> None:
        pattern = self.pattern
        if isinstance(pattern, str) and "{" not in pattern and "}" not in pattern:
            return
        if not isinstance(pattern, str) or set("{}") & set(_PARAMETER.sub("", pattern)):
            raise ValueError(f"Tag({self.pattern!r}): expected text with parameters such as {{id}}.")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, in their order."""
        return _parameters(self.pattern) if "{" in self.pattern else ()

    @property
    def name(self) -> str:
        """The name in the store. Raises TypeError while a parameter has no value."""
        if parameters := self.parameters:
            raise TypeError(f"{self!r} has parameters: call it with {', '.join(parameters)} to get one tag.")
        return self.pattern

    def __call__(self, *values: object, **named: object) -> "Tag":
        """The tag with every parameter filled in. Raises TypeError unless the arguments are its parameters."""
        parameters = self.parameters
        if named or len(values) != len(parameters):
            signature = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in parameters])
            try:
                values = signature.bind(*values, **named).args
            except TypeError as error:
                raise TypeError(f"{self!r}: {error}.") from None
        return Tag(self.fill(dict(zip(parameters, map(canonical, values), strict=True))))

    def fill(self, texts: dict[str, str]) -> str:
        """The name for parameters in their canonical text."""
        if "{" not in self.pattern:
            return self.pattern
        return _PARAMETER.sub(lambda match: quote(texts[match[1]], safe=""), self.pattern)

    def __repr__(self) -> str:
        return f"Tag({self.pattern!r})"


class Invalidate(Protocol):
    """Schedules invalidations: they take place after the transaction's commit, and not at all after a rollback."""

    def __call__(self, *tags: Tag) -> None: ...


def canonical(value: object) -> str:
    """The one text for all values that are equal, whichever of them a request or a service names."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, Decimal):
        return _digits(value)
    if isinstance(value, datetime):
        at = value.astimezone(UTC) if value.tzinfo else value
        return at.isoformat().replace("+00:00", "Z")
    return str(value)


def names_of(tags: Iterable[Tag]) -> tuple[str, ...]:
    """The names of the tags. Raises TypeError for one that lacks a value, and for anything but a tag."""
    return tuple([expect_tag(tag).name for tag in tags])


@lru_cache(maxsize=1000)  # of the tags that are declared: one with its values filled in has none
def _parameters(pattern: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_PARAMETER.findall(pattern)))


def expect_tag(value: object) -> Tag:
    if not isinstance(value, Tag):
        raise TypeError(f"Expected a Tag, not {value!r}: declare Tag({value!r}) once and use that.")
    return value


def _digits(number: Decimal) -> str:
    if not number.is_finite() or abs(number.adjusted()) > _MAX_DIGITS:
        return str(number)
    text = format(number, "f") if number else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text
