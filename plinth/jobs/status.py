"""Files by which an orchestrator sees how a worker is, since it has no port.

`alive-N` is touched while the event loop of process N turns, and `ready-N` exists while it can reach the queue.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

TOUCH_SECONDS = 5.0


class StatusFiles:
    """The files of one process; none without a folder."""

    def __init__(self, folder: Path | None, number: int) -> None:
        """Remove the files that a process of this number left when it was killed. Raises OSError."""
        self._folder = folder
        self._number = number
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for kind in ("alive", "ready"):
                (folder / f"{kind}-{number}").touch()  # so that a folder that cannot be written is found at the start
                (folder / f"{kind}-{number}").unlink()

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        with self._file("alive") as file:
            task = asyncio.create_task(_touch(file)) if file else None
            try:
                yield
            finally:
                if task is not None:
                    task.cancel()

    @contextmanager
    def ready(self) -> Iterator[None]:
        with self._file("ready"):
            yield

    @contextmanager
    def _file(self, kind: str) -> Iterator[Path | None]:
        if self._folder is None:
            yield None
            return
        file = self._folder / f"{kind}-{self._number}"
        file.touch()
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)


async def _touch(file: Path) -> None:
    while True:
        await asyncio.sleep(TOUCH_SECONDS)
        os.utime(file)
