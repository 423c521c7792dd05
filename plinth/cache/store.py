"""What a cache needs of a store: entries under keys, the generations of names, and claims to load a key."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from plinth.cache.generations import Tokens


@dataclass(frozen=True, slots=True)
class Entry:
    value: bytes
    tokens: Tokens
    """The generations of its names from before the value was loaded."""
    expires_at: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Lookup:
    entry: Entry | None
    tokens: Tokens | None
    """The current generations, to be stored with the value that is loaded next; None while Redis is unavailable."""


class Store(Protocol):
    """A store never raises because its server is unavailable: lookups then find nothing, and writes are dropped."""

    def peek(self, key: str, names: Sequence[str]) -> Entry | None:
        """As `read`, from the memory of this process alone."""

    def version(self, names: Sequence[str]) -> Hashable:
        """A value that differs after each invalidation of one of the names that this process has received."""

    async def read(self, key: str, names: Sequence[str]) -> Lookup:
        """Find the entry, if the generations of the names are still those that it carries."""

    async def write(self, key: str, entry: Entry) -> None:
        """Store the entry, unless its generations are known to be outdated: a newer entry may already be stored."""

    async def invalidate(self, names: Sequence[str]) -> None:
        """After this returns, no value that was loaded before the call is served."""

    async def claim(self, key: str, tokens: Tokens | None, seconds: float) -> str | None:
        """Claim the right to load a key; None while another process holds it. Pass the claim to `release`.

        A claim is for one set of generations: otherwise a load that began after an invalidation would wait for one that
        began before it, and could not use its value. It expires after `seconds`.
        """

    async def release(self, claim: str) -> None: ...

    def last_invalidation_at(self) -> float:
        """Unix time in seconds at which an invalidation was last received; now, while none can be received."""


def pack(entry: Entry) -> bytes:
    return orjson.dumps([entry.tokens, entry.expires_at]) + b"\n" + entry.value


def unpack(packed: bytes) -> Entry | None:
    """None for bytes that `pack` did not write."""
    head, _, value = packed.partition(b"\n")
    try:
        tokens, expires_at = orjson.loads(head)
        return Entry(value, {**tokens}, float(expires_at))
    except (ValueError, TypeError):
        return None
