"""Files that are stored and deleted with a transaction."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from hashlib import blake2b
from typing import NamedTuple
from uuid import uuid4

from plinth.database import Session
from plinth.storage.storage import Storage

HEAD_BYTES = 16


class StoredFile(NamedTuple):
    """What a row keeps of it."""

    key: str
    content_type: str
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

    async def put(self, prefix: str, chunks: AsyncIterator[bytes], content_type: Callable[[bytes], str]) -> StoredFile:
        """Store a file under a new key, and delete it again unless the transaction commits.

        `content_type` is called with its first 16 bytes or more, fewer if there are no more, and may raise. Call this
        before the first statement: until then the session holds no connection, however slow a client is.
        """
        head = b""
        while len(head) < HEAD_BYTES and (chunk := await anext(chunks, b"")):
            head += chunk
        kind, key = content_type(head), f"{prefix}/{uuid4().hex}"
        size, hash = len(head), blake2b(head, digest_size=16)

        async def measured() -> AsyncIterator[bytes]:
            nonlocal size
            yield head
            async for chunk in chunks:
                size += len(chunk)
                hash.update(chunk)
                yield chunk

        self._session.after_rollback(partial(self._storage.delete, key))
        await self._storage.put(key, measured())
        return StoredFile(key, kind, size, hash.hexdigest())

    def delete(self, key: str) -> None:
        """Delete a file after the commit, if that is certain: otherwise a row may still name it."""
        self._session.after_commit(partial(self._storage.delete, key), certain=True)
