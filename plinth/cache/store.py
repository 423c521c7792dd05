"""What a cache stands on: values under keys, and generations, which tell the values that may be served from the others.

Each name (a key, or a tag of many keys) has a generation, a random token. An entry carries those that its names had
before its value was loaded; it is served only while they still have them. To invalidate a name is to give it another
token: that takes one step, however many entries it concerns, and also meets a value that was loaded before and is
stored afterwards. Tokens are random and not counted, since a store may forget: a counter would begin again. They begin
with the time when they were made: when the name was invalidated, or its token had been forgotten.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from time import time
from typing import Protocol, TypeAlias

import orjson
from cachetools import LRUCache

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

    async def write(self, key: str, entry: Entry) -> None:
        """Keep it, unless its generations are known to be past: what has taken its place stays there."""

    async def invalidate(self, names: Sequence[str]) -> None:
        """Whatever was loaded before this call is never served after it."""

    async def claim(self, key: str, generations: Generations | None, seconds: float) -> str | None:
        """The right to load a key with these generations, for so long at most: what `release` takes; or None while
        somebody else has it. Nobody waits for a value from before an invalidation, of which he could make no use."""

    async def release(self, claim: str) -> None: ...

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


class _Known(LRUCache[str, tuple[str, int]]):
    """Each generation with the number of the change that brought it."""

    forgotten = 0
    """The newest change that is no longer known."""

    def popitem(self) -> tuple[str, tuple[str, int]]:
        name, (generation, change) = super().popitem()
        self.forgotten = max(self.forgotten, change)
        return name, (generation, change)


class Names:
    """The generations that a process knows of, as far as it can be sure of them without asking Redis.

    Redis tells of changes in the one order in which they happened; answers to questions come when they come.
    """

    def __init__(self, max_names: int) -> None:
        self._known = _Known(max_names)
        # What we have told, until we hear of it in its place among what others told.
        self._told: dict[str, tuple[str, int]] = {}
        self.changes = 0
        self.changed_at = 0.0
        """Unix time, in seconds."""

    def generations(self, names: Iterable[str]) -> Generations | None:
        """None unless all are known for certain."""
        generations = {}
        for name in names:
            known = self._known.get(name)
            if known is None or name in self._told:
                return None
            generations[name] = known[0]
        return generations

    def last_change(self, names: Iterable[str]) -> int:
        """The number of the latest change of one of them, or of a later one that may have been."""
        return max(max(self._change(name), self._told.get(name, ("", 0))[1]) for name in names)

    def are_past(self, generations: Generations) -> bool:
        """Whether one of them is known to be its name's no longer."""
        known = ((self._told.get(name) or self._known.get(name), old) for name, old in generations.items())
        return any(each is not None and each[0] != old for each, old in known)

    def learn(self, generations: Generations, asked_at: int) -> None:
        """From an answer, which may be older than what was heard since change `asked_at`, when it was asked for."""
        for name, generation in generations.items():
            change = self._change(name)
            if change <= asked_at:
                if self._known.get(name, (generation, 0))[0] != generation:
                    self._count_change()
                self._known[name] = generation, change

    def tell(self, generations: Generations) -> None:
        self._count_change()
        for name, generation in generations.items():
            self._told[name] = generation, self.changes

    def hear(self, generations: Mapping[str, str]) -> None:
        self._count_change()
        for name, generation in generations.items():
            told = self._told.get(name)
            if told is None or told[0] == generation:  # else it happened before what we told
                self._told.pop(name, None)
                self._known[name] = generation, self.changes

    def forget(self) -> None:
        """Changes may have been missed."""
        self._count_change()
        self._told.clear()
        self._known.clear()
        self._known.forgotten = self.changes

    def _count_change(self) -> None:
        self.changes += 1
        self.changed_at = time()

    def _change(self, name: str) -> int:
        return self._known.get(name, ("", self._known.forgotten))[1]
