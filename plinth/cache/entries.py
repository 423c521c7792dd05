"""Cached values: how each is loaded, kept in memory, and packed for Redis."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import orjson

from plinth.cache.generations import Tokens

Names: TypeAlias = tuple[str, ...]

MIN_LOAD_SECONDS, MAX_LOAD_SECONDS = 1.0, 10.0
"""A load that takes longer is not stored in Redis: its generations have expired there."""


@dataclass(frozen=True, slots=True)
class Caching:
    """How the values of a key are cached."""

    key: str
    names: Names
    parse: Callable[[bytes], Any]
    """Makes what is kept in memory of the packed bytes. Raises ValueError for foreign ones."""
    load_seconds: float
    """How long generations are kept in Redis for a load, since what it finds may not be stored."""


class Loaded(NamedTuple):
    packed: bytes
    ttl: float
    """Seconds; a value with 0 is not stored, and goes to those who wait for it."""
    value: Any = None
    """What `parse` would make of the packed bytes, where that is known."""


Deliver: TypeAlias = Callable[[Loaded | Exception], None]
Load: TypeAlias = Callable[[Deliver], Awaitable[None]]
"""Delivers once, to all who wait for it; it may go on after that."""


@dataclass(slots=True)
class Entry:
    value: Any
    """As it is used, which need not be as it is packed."""
    names: Names
    tokens: Tokens
    """The generations of its names from before the value was loaded."""
    expires_at: float
    """Unix time in seconds."""
    bytes: int
    """What it takes in memory, its key and its names included."""
    current_at: float = 0.0
    """When it was last found to be current: Unix time in seconds."""
    valid_at_change: int = -1
    """The change of the generations at which its tokens were last found to be current."""


@dataclass(frozen=True, slots=True)
class Lookup:
    packed: bytes | None
    expires_at: float
    tokens: Tokens | None
    """The current generations, to be stored with the value that is loaded next; None while Redis is unavailable."""


def load_seconds(ttl: float, missing_ttl: float) -> float:
    """How long generations are kept for a load: no longer than what is found least is cached."""
    return min(max(MIN_LOAD_SECONDS, min(ttl, missing_ttl or ttl)), MAX_LOAD_SECONDS)


def pack(entry: Entry, value: bytes) -> bytes:
    return orjson.dumps([entry.names, entry.tokens, entry.expires_at]) + b"\n" + value


def unpack(packed: bytes) -> tuple[list[str], list[str], float, bytes] | None:
    """The names, the tokens, the end and the value; None for bytes that `pack` did not write."""
    head, _, value = packed.partition(b"\n")
    try:
        names, tokens, expires_at = orjson.loads(head)
        return [*names], [*tokens], float(expires_at), value
    except (ValueError, TypeError):
        return None
