"""Objects of a bucket of an S3-compatible store, by the library obstore: the extra `s3`."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from plinth.storage.settings import StorageSettings
from plinth.storage.storage import CHUNK_BYTES, MissingObjectError, StorageUnavailableError, check_key

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Config


class S3Storage:
    def __init__(self, settings: StorageSettings) -> None:
        url = urlsplit(settings.url)
        # Without it every DELETE is a POST that several compatible stores do not have.
        config: S3Config = {"region": settings.region, "disable_bulk_delete": True}
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        if settings.access_key and settings.secret_key:
            config["access_key_id"] = settings.access_key
            config["secret_access_key"] = settings.secret_key.get_secret_value()
        timeout = timedelta(seconds=settings.timeout_seconds)
        self._store = S3Store(
            url.netloc,
            prefix=url.path.strip("/") or None,
            config=config,
            client_options={
                "allow_http": settings.endpoint.startswith("http://"),
                "connect_timeout": timeout,
                "read_timeout": timeout,
                "timeout": timedelta(days=1),  # of a whole request: a slow client reads for long
            },
            retry_config={"max_retries": 2, "retry_timeout": timeout},
        )

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> None:
        # One part of 5 MB is sent at a time. What `chunks` raises is raised, and the upload aborted; where the task is
        # cancelled, its parts stay until the lifecycle rule of the bucket removes them.
        with _translated():
            await obstore.put_async(self._store, check_key(key), chunks, max_concurrency=1)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        check_key(key)
        if end is not None and start >= end:
            return
        with _translated():
            options: GetOptions = {}
            if start or end is not None:  # an empty object has no range
                options["range"] = {"offset": start} if end is None else (start, end)
            result = await obstore.get_async(self._store, key, options=options)
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    async def delete(self, key: str) -> None:
        with _translated():
            await obstore.delete_async(self._store, check_key(key))

    async def keys(self, prefix: str, before: datetime) -> AsyncIterator[str]:
        with _translated():
            async for objects in obstore.list(self._store, check_key(prefix)):
                for each in objects:
                    if each["last_modified"] < before:
                        yield each["path"]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingObjectError from error
    except BaseError as error:
        raise StorageUnavailableError from error
