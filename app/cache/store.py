"""What a cache stands on: values under keys, and generations, which tell the values that may be served from the others.

Each name (a key, or a tag of many keys) has a generation, a random token. An entry carries those that its names had
before its value was loaded; it is served only while they still have them. To invalidate a name is to give it another
token: that takes one step, however many entries it concerns, and also meets a value that was loaded before and is
stored afterwards. Tokens are random and not counted, since a store may forget: a counter would begin again. They begin
with the time when they were made: when the name was invalidated, or its token had been forgotten.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from time import time
from typing import Protocol, TypeAlias

import orjson

Generations: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    value: bytes
    generations: Generations
    fresh_until: float
    """Unix time, in seconds, as `kept_until` is."""
    kept_until: float
    """Until then it may be served stale, while it is loaded anew."""


@dataclass(frozen=True, slots=True)
class Found:
    entry: Entry | None
    generations: Generations | None
    """Those of now, to be stored with whatever is loaded next; None while the store is away."""


class Store(Protocol):
    """Never raises for a server that is away: then it finds nothing, and keeps nothing."""

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        """As `read`, as far as it is known without asking anybody."""

    def version(self, names: Sequence[str]) -> Hashable:
        """Another one after each invalidation of one of the names, as far as it is known without asking anybody."""

    async def read(self, key: str, names: Sequence[str]) -> Found:
        """The entry, if the names still have its generations."""

    async def write(self, key: str, entry: Entry) -> None: ...

    async def invalidate(self, names: Sequence[str]) -> None:
        """Whatever was loaded before this call is never served after it."""

    async def claim(self, key: str, seconds: float) -> str | None:
        """The right to load a key, for so long at most: a token for `release`, or None while somebody else has it."""

    async def release(self, key: str, token: str) -> None: ...

    def heard_at(self) -> float:
        """When another process last invalidated something, as far as was heard: Unix time, in seconds."""


def new_generation() -> str:
    return f"{time():.3f}:{token_hex(8)}"


def newest(generations: Generations) -> float:
    """When the latest of them was made: Unix time, in seconds; now, for one that is not ours."""
    try:
        return max(float(generation.partition(":")[0]) for generation in generations.values())
    except ValueError:
        return time()


def pack(entry: Entry) -> bytes:
    head = orjson.dumps([entry.generations, entry.fresh_until, entry.kept_until])
    return head + b"\n" + entry.value


def unpack(packed: bytes) -> Entry | None:
    """None for what nobody here has packed."""
    head, _, value = packed.partition(b"\n")
    try:
        generations, fresh_until, kept_until = orjson.loads(head)
        return Entry(value, {**generations}, float(fresh_until), float(kept_until))
    except (ValueError, TypeError):
        return None
