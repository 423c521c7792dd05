"""Generations: the random tokens that separate cached values that may be served from those that may not.

Each name (a key, or a tag of many keys) has a generation, and so has the whole cache: the *epoch*. An entry carries the
generations from before its value was loaded, and is served only while they are still current. An invalidation deletes
the generation of a name, and the next read gives it another. That is one step however many entries depend on the
name, and it also covers a value that was loaded before the invalidation and is stored after it. Tokens are random,
since a counter would start again in a store that lost its data and hand out an old number twice. They end with the time
at which they were created.
"""

from collections.abc import Iterable, Sequence
from random import getrandbits
from time import time
from typing import TypeAlias

from cachetools import LRUCache

Tokens: TypeAlias = tuple[str, ...]
"""The generation of the whole cache, and that of each name."""

MAX_UNPUBLISHED = 1000
_BYTES_PER_NAME = 550
"""Memory for a name beside its letters: its places in three dicts, its token and its change."""


def new_token(prefix: str = "") -> str:
    return f"{prefix}{getrandbits(64):016x}:{time():.3f}"


def newest(tokens: Tokens) -> float:
    """Unix time in seconds at which the newest token was created; now, if one has no readable time."""
    try:
        return max(float(token.rpartition(":")[2]) for token in tokens)
    except ValueError:
        return time()


class _Known(LRUCache[str, tuple[str, str | None, int]]):
    """Each name with its token, None if that is not certain, and the number of the change that brought it."""

    last_evicted = 0
    """The newest change whose name was evicted."""

    def popitem(self) -> tuple[str, tuple[str, str | None, int]]:
        name, known = super().popitem()
        self.last_evicted = max(self.last_evicted, known[2])
        return name, known


class Unpublished:
    """The names whose invalidation could not be published yet; instead of too many, everything."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._is_everything = False

    def __bool__(self) -> bool:
        return self._is_everything or bool(self.names)

    def add(self, names: Iterable[str] | None) -> None:
        """None is everything."""
        self.names.update(names or ())
        if names is None or len(self.names) > MAX_UNPUBLISHED or self._is_everything:
            self._is_everything = True
            self.names.clear()

    def take(self) -> list[str] | None:
        """Return what is to be published, None for everything, and forget it."""
        names = None if self._is_everything else sorted(self.names)
        self._is_everything = False
        self.names.clear()
        return names


class Generations:
    """The generations that this process may rely on without a round trip to Redis.

    Redis publishes invalidations in the order in which they happened. Replies to commands arrive on another connection,
    so a reply may be older than a message that was received before it. Changes are numbered to detect that.
    """

    def __init__(self, max_bytes: int) -> None:
        self._known = _Known(max_bytes, getsizeof=lambda known: _BYTES_PER_NAME + 2 * len(known[0]))
        self._epoch: str | None = None
        self._cleared_at_change = 0
        self.change_count = 0
        self.changed_at = 0.0
        """Unix time in seconds."""

    def get(self, names: Iterable[str]) -> Tokens | None:
        """The tokens of the epoch and of all names, or None if one is not certain."""
        if self._epoch is None:
            return None
        tokens = [self._epoch]
        for name in names:
            token = self._token(name)
            if token is None:
                return None
            tokens.append(token)
        return tuple(tokens)

    def last_change(self, names: Iterable[str]) -> int:
        """The number of the last change of one of the names; may be higher after an eviction, never lower."""
        return max([self._cleared_at_change, *map(self._change_of, names)])

    def observe(self, names: Sequence[str], tokens: Tokens, sent_at_change: int) -> None:
        """Take over tokens from a reply to a command that was sent when `change_count` was `sent_at_change`.

        A name that has changed since then is left alone, because the reply may be older than that change.
        """
        if self._cleared_at_change > sent_at_change or self.get(names) == tokens:
            return
        epoch, *others = tokens
        if self._epoch not in {None, epoch}:
            self.clear()  # the numbers of the changes since the command was sent go with it, so nothing is taken over
            return
        self._epoch = epoch
        for name, token in zip(names, others, strict=True):
            change = self._change_of(name)
            if change <= sent_at_change:
                if self._token(name) not in {None, token}:  # it had expired in Redis, with all that depended on it
                    self._count_change()
                self._put(name, token, change)

    def create(self, names: Iterable[str]) -> None:
        """Give what has no token one of this process, where no other shares them."""
        self._epoch = self._epoch or new_token()
        for name in names:
            if self._token(name) is None:
                self._put(name, new_token(), self._change_of(name))

    def observe_epoch(self, epoch: str | None) -> None:
        """Take over the epoch of a heartbeat: a cache that Redis has lost holds nothing that may be served."""
        if self._epoch not in {None, epoch}:
            self.clear()

    def forget(self, names: Iterable[str]) -> None:
        """The names are being invalidated, or have been."""
        self._count_change()
        for name in names:
            self._put(name, None, self.change_count)

    def clear(self) -> None:
        """Forget everything, because messages may have been missed."""
        self._count_change()
        self._known.clear()
        self._epoch = None
        self._known.last_evicted = self._cleared_at_change = self.change_count

    def _token(self, name: str) -> str | None:
        known = self._known.get(name)
        return known[1] if known else None

    def _put(self, name: str, token: str | None, change: int) -> None:
        try:
            self._known[name] = name, token, change
        except ValueError:  # larger than all that names may take
            self._known.last_evicted = max(self._known.last_evicted, change)

    def _count_change(self) -> None:
        self.change_count += 1
        self.changed_at = time()

    def _change_of(self, name: str) -> int:
        known = self._known.get(name)
        return known[2] if known else self._known.last_evicted
