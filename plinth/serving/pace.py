"""Whether the client of a connection sends and reads fast enough. One check a second costs less than a timer each."""

from typing import TYPE_CHECKING

from plinth.serving.refusals import Refusal
from plinth.serving.settings import ServerSettings

if TYPE_CHECKING:
    from plinth.serving.protocol import Protocol

BYTES_PER_SECOND = 240
"""A client that sends a body or reads a response is slow below this rate, which Kestrel uses as well."""


class Pace:
    """Since when a connection has been in the same stage, and what its client has moved since then."""

    def __init__(self) -> None:
        self._stage: tuple[str, int] | None = None
        self._scope: object = None
        self._since = 0.0
        self._moved = 0

    def check(self, connection: "Protocol", now: float, settings: ServerSettings) -> None:
        """End the connection of a client that was too slow for as long as the settings allow."""
        found = _stage(connection, settings)
        if found is None:
            self._stage = None
            return
        stage, moved, seconds = found
        elapsed = now - self._since
        if stage != self._stage or connection.scope is not self._scope:
            self._stage, self._scope, self._since, self._moved = stage, connection.scope, now, moved
        elif elapsed < seconds:
            pass
        elif moved - self._moved >= BYTES_PER_SECOND * elapsed:
            self._since, self._moved = now, moved
        elif stage[0] == "sending":
            connection.transport.abort()  # a close would wait until the client has read the rest
        elif stage[0] == "idle":
            connection.transport.close()
        else:
            connection.refuse(Refusal(408, f"The {stage[0]} of the request did not arrive in time."))


def _stage(connection: "Protocol", settings: ServerSettings) -> tuple[tuple[str, int], int, float] | None:
    """Return what the client has to do, how many bytes it has moved by then, and its time; None if it is our turn."""
    unread = connection.transport.get_write_buffer_size()
    if unread and (connection.flow.write_paused or not connection.responding):  # nothing is added to the buffer
        return ("sending", connection.writing_resumed), -unread, settings.send_timeout_seconds
    if not connection.reading:
        return None
    if connection.in_body:
        queued = connection.pipeline or connection.cycle.waiting_for_100_continue
        return None if queued else (("body", 0), connection.bytes_received, settings.body_timeout_seconds)
    if connection.responding:
        return None
    if connection.in_head:
        return ("header", 0), 0, settings.header_timeout_seconds
    return ("idle", 0), 0, settings.keep_alive_seconds
