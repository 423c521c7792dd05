"""Files that are stored and deleted with a transaction."""

from collections.abc import AsyncIterable, AsyncIterator
from functools import partial
from hashlib import blake2b
from typing import NamedTuple
from uuid import uuid4

from plinth.database import Session
from plinth.storage.storage import Storage


class StoredFile(NamedTuple):
    """What a row keeps of it."""

    key: str
    size: int
    hash: str
    """Of its bytes, in 32 hexadecimal digits."""


class Files:
    """Stores new files before a transaction and deletes old ones after it, so that what a row names is always there.

    A process that dies in between, and a COMMIT whose answer is lost, leave a file that no row names.
    """

    def __init__(self, storage: Storage, session: Session) -> None:
        self._storage = storage
        self._session = session

    async def put(self, prefix: str, chunks: AsyncIterable[bytes]) -> StoredFile:
        """Store a file under a new key, and delete it again unless the transaction commits.

        Call it before the first statement: until then the session holds no connection, however slow a client is.
        """
        key = f"{prefix}/{uuid4().hex}"
        size, hash = 0, blake2b(digest_size=16)

        async def measured() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                hash.update(chunk)
                yield chunk

        self._session.after_rollback(partial(self._storage.delete, key))
        await self._storage.put(key, measured())
        return StoredFile(key, size, hash.hexdigest())

    def delete(self, key: str) -> None:
        """Delete a file after the commit, if that is certain: otherwise a row may still name it."""
        self._session.after_commit(partial(self._storage.delete, key), certain=True)
