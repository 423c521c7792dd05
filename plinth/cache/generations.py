"""Generations: the random tokens that separate cached values that may be served from those that may not.

Each name (a key, or a tag of many keys) has a generation. An entry carries the generations that its names had before
its value was loaded, and is served only while they are still current. Invalidating a name gives it another generation.
That is one step however many entries depend on the name, and it also covers a value that was loaded before the
invalidation and is stored after it. Tokens are random, since a counter would start again in a store that lost its data
and hand out an old number twice. They begin with the time at which they were created.
"""

from collections.abc import Iterable, Mapping
from secrets import token_hex
from time import time
from typing import TypeAlias

from cachetools import LRUCache

Tokens: TypeAlias = Mapping[str, str]
"""The generation of each name."""


def new_token() -> str:
    return f"{time():.3f}:{token_hex(8)}"


def newest(tokens: Tokens) -> float:
    """Unix time in seconds at which the newest token was created; now, if one has no readable time."""
    try:
        return max(float(token.partition(":")[0]) for token in tokens.values())
    except ValueError:
        return time()


class _Current(LRUCache[str, tuple[str, int]]):
    """The token of each name, and the number of the change that brought it."""

    last_evicted = 0
    """The newest change whose token was evicted."""

    def popitem(self) -> tuple[str, tuple[str, int]]:
        name, (token, change) = super().popitem()
        self.last_evicted = max(self.last_evicted, change)
        return name, (token, change)


class Generations:
    """The generations that this process may rely on without a round trip to Redis.

    Redis publishes invalidations in one order, the order in which they happened. Replies to commands arrive on another
    connection, so a reply may be older than a message that was received before it. Changes are numbered to detect that.
    """

    def __init__(self, max_names: int) -> None:
        self._current = _Current(max_names)
        # Announced by this process, until Redis publishes it back in its place among the others.
        self._announced: dict[str, tuple[str, int]] = {}
        self.change_count = 0
        self.changed_at = 0.0
        """Unix time in seconds."""

    def get(self, names: Iterable[str]) -> Tokens | None:
        """The tokens of all names, or None if one is not certain."""
        tokens = {}
        for name in names:
            current = self._current.get(name)
            if current is None or name in self._announced:
                return None
            tokens[name] = current[0]
        return tokens

    def last_change(self, names: Iterable[str]) -> int:
        """The number of the last change of one of the names; may be higher after an eviction, never lower."""
        return max(max(self._change_of(name), self._announced.get(name, ("", 0))[1]) for name in names)

    def are_outdated(self, tokens: Tokens) -> bool:
        """Whether one of the tokens is known to have been replaced."""
        known = ((self._announced.get(name) or self._current.get(name), token) for name, token in tokens.items())
        return any(entry is not None and entry[0] != token for entry, token in known)

    def observe(self, tokens: Tokens, sent_at_change: int) -> None:
        """Take over tokens from a reply to a command that was sent when `change_count` was `sent_at_change`.

        A name that has changed since then is left alone, because the reply may be older than that change.
        """
        for name, token in tokens.items():
            change = self._change_of(name)
            if change <= sent_at_change:
                if self._current.get(name, (token, 0))[0] != token:
                    self._count_change()
                self._current[name] = token, change

    def announce(self, tokens: Tokens) -> None:
        """Mark the names as changing, before this process publishes their new tokens."""
        self._count_change()
        for name, token in tokens.items():
            self._announced[name] = token, self.change_count

    def apply(self, tokens: Tokens) -> None:
        """Take over tokens that Redis has published."""
        self._count_change()
        for name, token in tokens.items():
            announced = self._announced.get(name)
            # Another process's message that precedes our own announcement in Redis's order: ours will replace it.
            if announced is None or announced[0] == token:
                self._announced.pop(name, None)
                self._current[name] = token, self.change_count

    def clear(self) -> None:
        """Forget all tokens, because messages may have been missed."""
        self._count_change()
        self._announced.clear()
        self._current.clear()
        self._current.last_evicted = self.change_count

    def _count_change(self) -> None:
        self.change_count += 1
        self.changed_at = time()

    def _change_of(self, name: str) -> int:
        return self._current.get(name, ("", self._current.last_evicted))[1]
