"""Objects as files of a local folder, which several processes and containers of one host may share."""

import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from anyio import to_thread

from plinth.storage.storage import CHUNK_BYTES, MissingObjectError, StorageUnavailableError, check_key


class LocalStorage:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> None:
        target = self._folder / check_key(key)
        # Only a whole file has the name: a process that dies leaves a .part, which `keys` yields like the others.
        part = target.with_name(f"{target.name}.{uuid4().hex}.part")
        with _translated():
            file = await to_thread.run_sync(_create, part)
        try:
            with file:
                async for chunk in chunks:
                    with _translated():
                        await to_thread.run_sync(file.write, chunk)
                with _translated():
                    await to_thread.run_sync(_complete, file, target)
        finally:
            part.unlink(missing_ok=True)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        path = self._folder / check_key(key)
        with _translated():
            file = await to_thread.run_sync(path.open, "rb")
        with file:
            file.seek(start)
            while end is None or start < end:
                most = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
                with _translated():
                    chunk = await to_thread.run_sync(file.read, most)
                if not chunk:
                    return
                start += len(chunk)
                yield chunk

    async def delete(self, key: str) -> None:
        path = self._folder / check_key(key)
        with _translated():
            await to_thread.run_sync(partial(path.unlink, missing_ok=True))

    async def keys(self, prefix: str, before: datetime) -> AsyncIterator[str]:
        with _translated():
            found = await to_thread.run_sync(self._older, check_key(prefix), before.timestamp())
        for key in found:
            yield key

    def _older(self, prefix: str, before: float) -> list[str]:
        files = (path for path in (self._folder / prefix).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self._folder)) for path in files if path.stat().st_mtime < before)


def _create(part: Path) -> BinaryIO:
    part.parent.mkdir(parents=True, exist_ok=True)
    return part.open("xb")


def _complete(file: BinaryIO, target: Path) -> None:
    """Give the file its name once its bytes are on the disk: a machine that stops leaves it whole, or not at all."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingObjectError from error
    except OSError as error:
        raise StorageUnavailableError from error
