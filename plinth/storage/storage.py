"""The interface of a store, and what all of them have in common."""

import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from datetime import datetime
from typing import Protocol

from plinth.errors import UnavailableError

CHUNK_BYTES = 65_536
# No segment may begin with a dot, so that none is `.` or `..`.
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_MOST_CHARACTERS = 512


class Storage(Protocol):
    """Objects under keys such as `invoices/5f0c9b7d`, which the service makes up: never a name that a client sent.

    Each method raises ValueError for a key of another form, and UnavailableError where the store fails.
    """

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> None:
        """Store an object whole, or not at all: what `chunks` raises is raised, and leaves nothing."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end`. Raises UnavailableError where there is no such object, too."""

    async def delete(self, key: str) -> None:
        """Delete an object, if it is there."""

    def keys(self, prefix: str, before: datetime) -> AsyncIterator[str]:
        """Yield the keys below a prefix whose objects were stored before an instant."""


class MissingObjectError(UnavailableError):
    """Most likely it was replaced after the row that names it was read, so that another attempt finds the new one."""

    def __init__(self) -> None:
        super().__init__("The file is not there at this moment. Try again.")


class StorageUnavailableError(UnavailableError):
    def __init__(self) -> None:
        super().__init__("The storage of files cannot be reached. Try again later.")


def check_key(key: str) -> str:
    """Return the key. Raises ValueError unless it is the same in a folder and in a bucket, and stays below both."""
    if len(key) > _MOST_CHARACTERS or not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of an object")
    return key
