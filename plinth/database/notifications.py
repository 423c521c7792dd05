"""Wakes what waits for a change that another process may make, over LISTEN and NOTIFY on one connection per process.

A notification only says "look again": what has changed is read from tables, from where the reader has got to. So one
that is lost, while the connection was, costs nothing but the time until the connection is there again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import Context
from time import time
from typing import Any
from weakref import WeakValueDictionary

import asyncpg

from plinth.database.connections import driver_arguments
from plinth.database.errors import DRIVER_ERRORS
from plinth.database.pulse import Pulse
from plinth.database.replica import must_see
from plinth.database.settings import DatabaseSettings

log = logging.getLogger(__name__)

CHANNEL = "plinth"
# Transactions that notify the same topic take turns, from here to their commits.
NOTIFY = f"SELECT pg_advisory_xact_lock(hashtextextended(CAST(:topic AS text), 0)), pg_notify('{CHANNEL}', :topic)"
CHECK_SECONDS = 15.0
"""Between two checks whether the server still answers: a connection that ends silently brings no notifications."""
LONGEST_PAUSE_SECONDS = 30.0
RECANCEL_SECONDS = 0.1


class Notifications:
    """Connects, past a pooler, when something is watched for the first time."""

    def __init__(self, settings: DatabaseSettings, application_name: str, pulse: Pulse | None = None) -> None:
        """Its connection ends when `pulse` finds that the server is silent: no notification would arrive on it."""
        self._ended_with: set[asyncpg.Connection] = pulse.listeners if pulse else set()
        self._arguments = driver_arguments(settings.direct, application_name)
        self._topics: WeakValueDictionary[str, _Topic] = WeakValueDictionary()  # those that are being watched
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def watch(self, topic: str, seconds: float) -> AsyncIterator[None]:
        """Yield at once, and again whenever a transaction may have notified this topic: then look.

        It ends after `seconds`, and when the process stops. What is read in between comes from the primary: a replica
        may lag behind the notification.
        """
        if self._task is None:
            # In a context of its own: this one is of a request.
            self._task = asyncio.create_task(self._listen(), context=Context())
        watched = self._topics.setdefault(topic, _Topic())
        with suppress(TimeoutError):
            loop = asyncio.get_running_loop()
            ends_at = loop.time() + seconds
            while not self._is_stopping and loop.time() < ends_at:
                changed = watched.changed  # before the look, so that a change during it is seen by another one
                must_see.set(time())
                yield
                async with asyncio.timeout_at(ends_at):
                    await changed.wait()

    def stop(self) -> None:
        """End all watching, at once and for good."""
        self._is_stopping = True
        self._wake_all()

    async def close(self) -> None:
        self.stop()
        while self._task is not None and not self._task.done():
            # Again: on Python 3.11 asyncpg may lose a cancellation that arrives together with what it waits for.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=RECANCEL_SECONDS)

    async def _listen(self) -> None:
        pause = 1.0
        while True:
            try:
                connection = await asyncpg.connect(**self._arguments)
                self._ended_with.add(connection)
                try:
                    ended = asyncio.Event()
                    connection.add_termination_listener(lambda _, ended=ended: ended.set())
                    await connection.add_listener(CHANNEL, self._on_notification)
                    self._wake_all()  # there may have been notifications before
                    pause = 1.0
                    while not ended.is_set():
                        with suppress(TimeoutError):
                            async with asyncio.timeout(CHECK_SECONDS):
                                await ended.wait()
                        await connection.execute("SELECT 1")
                finally:
                    self._ended_with.discard(connection)
                    with suppress(*DRIVER_ERRORS):
                        await connection.close(timeout=1)
            except DRIVER_ERRORS as error:
                log.warning("There are no notifications until PostgreSQL is reached again: %r", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _on_notification(self, _connection: Any, _process: int, _channel: str, topic: Any) -> None:
        if (watched := self._topics.get(topic)) is not None:
            watched.wake()

    def _wake_all(self) -> None:
        for watched in list(self._topics.values()):
            watched.wake()


class _Topic:
    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
