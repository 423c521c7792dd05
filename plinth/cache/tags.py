"""Tags: what cached values depend on."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Protocol
from urllib.parse import quote

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Tag:
    """A name under which cached values are invalidated together.

    `PRODUCTS = Tag("products")` is used as it is. `PRODUCT = Tag("product:{id}")` has a parameter and is called to fill
    it in: `PRODUCT(5)`, or `PRODUCT(id=5)`. Values are percent-encoded, so a `:` or `/` in one cannot be mistaken for
    one of the pattern.
    """

    pattern: str

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or set("{}") & set(_PARAMETER.sub("", self.pattern)):
            raise ValueError(f"Tag({self.pattern!r}): expected text with parameters such as {{id}}.")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, in their order."""
        return tuple(dict.fromkeys(_PARAMETER.findall(self.pattern)))

    @property
    def name(self) -> str:
        """The name in the store. Raises TypeError while a parameter has no value."""
        if parameters := self.parameters:
            raise TypeError(f"{self!r} has parameters: call it with {', '.join(parameters)} to get one tag.")
        return self.pattern

    def __call__(self, *values: object, **named: object) -> "Tag":
        """The tag with every parameter filled in. Raises TypeError unless the arguments are its parameters."""
        signature = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in self.parameters])
        try:
            arguments = signature.bind(*values, **named).arguments
        except TypeError as error:
            raise TypeError(f"{self!r}: {error}.") from None
        quoted = {name: quote(str(value), safe="") for name, value in arguments.items()}
        return Tag(self.pattern.format_map(quoted))

    def __repr__(self) -> str:
        return f"Tag({self.pattern!r})"


class Invalidate(Protocol):
    """Schedules invalidations: they take place after the transaction's commit, and not at all after a rollback."""

    def __call__(self, *tags: Tag) -> None: ...


def names_of(tags: Iterable[Tag]) -> tuple[str, ...]:
    """The names of the tags. Raises TypeError for one that lacks a value, and for anything but a tag."""
    return tuple([expect_tag(tag).name for tag in tags])


def expect_tag(value: object) -> Tag:
    if not isinstance(value, Tag):
        raise TypeError(f"Expected a Tag, not {value!r}: declare Tag({value!r}) once and use that.")
    return value
