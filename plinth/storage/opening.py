"""Opens the store that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plinth.storage.local import LocalStorage
from plinth.storage.settings import StorageSettings
from plinth.storage.storage import Storage


@asynccontextmanager
async def open_storage(settings: StorageSettings) -> AsyncIterator[Storage]:
    """Open it for the length of a block: the bucket of STORAGE_URL, or else STORAGE_FOLDER."""
    if settings.url:
        from plinth.storage.s3 import S3Storage

        yield S3Storage(settings)
    else:
        yield LocalStorage(settings.folder)
