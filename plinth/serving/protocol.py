"""Uvicorn's HTTP protocol within bounds: how much of a request is read, how long it may take, and how it is refused.

Uvicorn passes each segment to httptools unseen, and httptools ends a request at an `Upgrade` header: what
follows is then parsed as another request, although it is the body (RFC 9110 §7.8). So `data_received` is replaced. It
does what Uvicorn's does, in pieces of a bounded size; everything else extends Uvicorn's methods.
"""

from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plinth.serving.heads import HEAD_END, MAX_HEADER_FIELDS, MAX_REQUEST_LINE, PIECE_BYTES, Head, end_of_heads
from plinth.serving.pace import Pace
from plinth.serving.refusals import Refusal
from plinth.serving.settings import ServerSettings

MAX_PIPELINED = 8
"""Requests that wait for the response to another one. As long as there are as many, nothing is read."""
LINGER_SECONDS = 2.0
SLASH = ord("/")


class Protocol(HttpToolsProtocol):
    stopping: ClassVar[bool] = False
    """Set for the whole process when its server stops: each response then ends its connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The scope stands for its request: the first byte of a request replaces it.
        self._scope_with_head: Any = None
        self._scope_with_body: Any = None
        self._scope_in_pieces: Any = None
        self._head_bytes = self._other_bytes = 0
        self._held, self._position = b"", 0  # received, but not parsed yet
        self._refusal: Refusal | None = None
        self.bytes_received = self.writing_resumed = 0
        self._pace = Pace()

    @property
    def idle(self) -> bool:
        """Whether every request that was received, even in part, has its whole response."""
        answered = self.cycle.scope if self.cycle and self.cycle.response_complete else None
        return self.scope is answered and not self._held

    @property
    def responding(self) -> bool:
        """Whether the response to a request whose head was received is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def in_head(self) -> bool:
        return self.scope is not self._scope_with_head

    @property
    def in_body(self) -> bool:
        return self._scope_with_head is not self._scope_with_body

    @property
    def reading(self) -> bool:
        """Whether what the client sends is read and parsed."""
        return not (self._held or self._refusal or self.flow.read_paused)

    def announce_close(self) -> None:
        """Send `Connection: close` with the next response, unless its head has been sent already."""
        if self.cycle and not self.cycle.response_started:
            self.shutdown()  # closes nothing while a response is outstanding

    def check_pace(self, now: float, settings: ServerSettings) -> None:
        """Cut a slow client off; called about once a second."""
        self._pace.check(self, now, settings)

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        if self._refusal:
            return  # the client reads the response once it has sent everything
        # Every head ends with an empty line, so the number of empty lines bounds that of the requests.
        if self._held or self.pipeline or len(data) > PIECE_BYTES or data.count(HEAD_END) > MAX_PIPELINED:
            self._held, self._position = self._held[self._position :] + data, 0
            self._parse_held()
        else:
            self._parse(data)

    def _parse_held(self) -> None:
        held, stop = self._held, len(self._held)
        while self._position < stop and len(self.pipeline) < MAX_PIPELINED and not self._refusal:
            start, heads = self._position, MAX_PIPELINED - len(self.pipeline)
            self._position = end_of_heads(held, start, min(start + PIECE_BYTES, stop), heads)
            self._parse(held[start : self._position])
        if self._position == stop or self._refusal:
            self._held, self._position = b"", 0
            if not self.flow.read_paused:
                self.transport.resume_reading()
        else:
            # Paused directly: Uvicorn's flow control would read on as soon as an endpoint waits for its body.
            self.flow.resume_reading()
            self.transport.pause_reading()

    def _parse(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        scope = self.scope
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.in_head:
                version = self.parser.get_http_version()
                self._parse(self._head().without_upgrade(version) + data[upgrade.args[0] :])
            elif self.cycle is None or self.cycle.scope is not self.scope:
                self.handle_websocket_upgrade()
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.refuse(cause if isinstance(cause, Refusal) else Refusal(400, "The request could not be parsed."))
        else:
            if self.in_head or self.scope is scope:
                self._check_part(data)

    def _check_part(self, data: bytes) -> None:
        try:
            if not self.in_head:
                self._other_bytes += len(data)
                Head.check_other_bytes(self._other_bytes)
            elif self._scope_in_pieces is self.scope:
                self._head_bytes += len(data)
            else:  # of this piece, other requests may have taken most
                self._scope_in_pieces, self._head_bytes = self.scope, 0
            if self.in_head:
                self._head().check_size(self._head_bytes - MAX_REQUEST_LINE)
                if data.endswith(b"\n") and self.url and self.parser.get_http_version() == "0.0":
                    raise Refusal(400, "HTTP/0.9 is not supported.")
        except Refusal as refusal:
            self.refuse(refusal)

    def on_headers_complete(self) -> None:
        in_pieces = self._scope_in_pieces is self.scope  # else it fitted into one
        if in_pieces or len(self.headers) > MAX_HEADER_FIELDS or len(self.url) > MAX_REQUEST_LINE // 2:
            head = self._head()
            head.check_size(head.field_bytes if in_pieces else 0)
        if self.parser.should_upgrade():
            head = self._head()
            head.check_method()
            if self.ws_protocol_class is None or self.responding or not head.upgrades_to_websocket:
                if self.parser.should_keep_alive():
                    return  # parsed again, as of a client that does not ask for another protocol
                head.check_no_body()
        version, names = self.parser.get_http_version(), [name for name, _ in self.headers]
        if version != "1.1" or self.url[0] != SLASH or names.count(b"host") != 1 or b"transfer-encoding" in names:
            self.url = self._head().checked_target(version)
            self.expect_100_continue &= version == "1.1"  # RFC 9110 §10.1.1
        super().on_headers_complete()
        self._scope_with_head, self._other_bytes = self.scope, 0
        if not self.parser.should_upgrade():
            self.headers = []  # of the trailer, which must not be merged into the header (RFC 9110 §6.5.1)
        if self.stopping:
            self.announce_close()

    def on_body(self, body: bytes) -> None:
        self._other_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.scope is not self._scope_with_head:
            return  # an Upgrade that is ignored
        self._scope_with_body = self.scope
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held and not self.transport.is_closing():
            self._parse_held()
        self._send_refusal()

    def _head(self) -> Head:
        return Head(self.parser.get_method(), self.url, self.headers)

    def resume_writing(self) -> None:
        self.writing_resumed += 1
        super().resume_writing()

    def refuse(self, refusal: Refusal) -> None:
        """Answer after the responses to the requests before it, and end the connection."""
        self._refusal = refusal
        self._send_refusal()

    def _send_refusal(self) -> None:
        if self._refusal is None or self.transport.is_closing():
            return
        if self.pipeline if self.in_body else self.responding:
            return  # called again after each response
        if self.in_body and self.cycle.response_started:
            self.transport.close()
            return
        self._refusal.log()
        self.transport.write(self._refusal.response(self.server_state.default_headers))
        if self.in_body:
            self.transport.close()  # the endpoint, which has begun, is disconnected
        else:
            # A close would reset the connection while the client is sending, and the response could be lost.
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
