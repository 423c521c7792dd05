"""The generations that a process knows of, as far as it can be sure of them without asking Redis."""

from collections.abc import Iterable, Mapping
from time import time

from cachetools import LRUCache

from app.cache.store import Generations


class _Known(LRUCache[str, tuple[str, int]]):
    """Each generation with the number of the change that brought it."""

    forgotten = 0
    """The newest change that is no longer known."""

    def popitem(self) -> tuple[str, tuple[str, int]]:
        name, (generation, change) = super().popitem()
        self.forgotten = max(self.forgotten, change)
        return name, (generation, change)


class Names:
    """Redis tells of changes in the one order in which they happened; answers to questions come when they come."""

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

    def learn(self, generations: Generations, asked_at: int) -> None:
        """From an answer, which may be older than what was heard since change `asked_at`, when it was asked for."""
        for name, generation in generations.items():
            change = self._change(name)
            if change <= asked_at and name not in self._told:
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
