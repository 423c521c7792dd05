"""Whether the client of a read is still there."""

import asyncio

from starlette.types import Message, Receive

from plinth.resilience.deadline import deadline

WATCHED_AFTER_SECONDS = 0.2
"""A read that is answered sooner, as most are, costs a timer and no task."""


class DisconnectWatch:
    """Expires the deadline of a read once its client has disconnected: its response has no receiver.

    A server reports the disconnect as a message of the request. So after WATCHED_AFTER_SECONDS the watch receives the
    messages, and keeps them for the app, whose `receive` is that of the watch. An app that is receiving at that time
    gets the disconnect itself. The watch ends at a part of a body, so that it does not keep more than one.
    """

    def __init__(self, receive: Receive, limit: deadline) -> None:
        self.client_left = False
        self._receive, self._limit = receive, limit
        self._app_receives = False
        self._kept: asyncio.Queue[Message | Exception] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCHED_AFTER_SECONDS, self._begin)

    async def receive(self) -> Message:
        if self._kept is not None and self._task is not None and not (self._kept.empty() and self._task.done()):
            message = await self._kept.get()
            if isinstance(message, Exception):
                raise message
            return message
        self._app_receives = True
        try:
            return await self._receive()
        finally:
            self._app_receives = False

    def end(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        if not self._app_receives and not self._limit.lifted:
            self._kept = asyncio.Queue()
            self._task = asyncio.create_task(self._watch(self._kept))

    async def _watch(self, kept: "asyncio.Queue[Message | Exception]") -> None:
        more = True
        while more:
            try:
                message = await self._receive()
            except Exception as error:  # of middleware around it, such as a limit of the body
                kept.put_nowait(error)
                return
            kept.put_nowait(message)
            self.client_left = message["type"] == "http.disconnect"
            if self.client_left:
                self._limit.expire()
            more = not self.client_left and not message.get("more_body")
