"""Optimistic locking: a change may be made on condition that the row still has one of certain versions."""

from collections.abc import Collection
from typing import Protocol, TypeAlias

from plinth.errors import ChangedError

Versions: TypeAlias = Collection[int] | None
"""The versions that a change may be made to; None is any."""


class Versioned(Protocol):
    """An entity whose mapper has a `version_id_col`."""

    @property
    def id(self) -> object: ...

    @property
    def version(self) -> int: ...


def check_version(entity: Versioned, versions: Versions) -> None:
    """Raise ChangedError unless the version of the entity is one of `versions`.

    Read the entity with a lock (`session.get(…, with_for_update=True)`): of two changes at once, the second then waits
    and reads the version that the first has made.
    """
    if versions is not None and entity.version not in versions:
        raise ChangedError(type(entity).__name__.lower(), str(entity.id))
