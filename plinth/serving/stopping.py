"""What has to end so that a worker can stop: streams, which last for as long as their clients read them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_callbacks: list[Callable[[], None]] = []


@asynccontextmanager
async def on_stop(callback: Callable[[], None]) -> AsyncIterator[None]:
    """For the time of the block, call `callback` when the worker stops, before it waits for requests in progress."""
    _callbacks.append(callback)
    try:
        yield
    finally:
        _callbacks.remove(callback)


def announce_stop() -> None:
    for callback in tuple(_callbacks):
        callback()
