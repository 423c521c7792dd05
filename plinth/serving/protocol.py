"""Uvicorn's HTTP protocol, which checks and writes the head of a usual answer as one and not header by header.

What is not usual (no length, a `Connection` header), and what is wrong, is Uvicorn's to write or to refuse.
"""

import asyncio
import re
from collections.abc import Collection
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_Headers = list[tuple[bytes, bytes]]

# RFC 9110 §5.6.2 (names are in lower case, as ASGI wants them) and §5.5.
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_NO_VALUE_HOLDS = bytes({*range(32), 127} - {9})
_FRAMING = frozenset({b"connection", b"transfer-encoding"})
_BODILESS = frozenset({204, 304})
_MOST_NAMES = 1000


class Cycle(RequestResponseCycle):
    """A request and its answer."""

    _good_names: ClassVar[set[bytes]] = set()
    _common: ClassVar[tuple[_Headers, bytes | None]] = [], b""

    _held: bytes | None = None
    """The head, until there is a body to go with it: two writes would be two system calls."""

    async def send(self, message: Any) -> None:
        held, self._held = self._held, None
        ready = not (self.disconnected or self.flow.write_paused)
        if held is not None:
            if ready and self._ends_with(message):
                self._end(held, message.get("body", b""))
                return
            if not self.disconnected:
                self.transport.write(held)
        elif message["type"] == "http.response.start" and ready and not self.response_started:
            self._held = self._head(message)
            if self._held is not None:
                self.response_started = True
                self.waiting_for_100_continue = False
                return
        await super().send(message)

    def _ends_with(self, message: Any) -> bool:
        if message["type"] != "http.response.body" or message.get("more_body") or self.scope["method"] == "HEAD":
            return False
        return len(message.get("body", b"")) == self.expected_content_length

    def _end(self, head: bytes, body: bytes) -> None:
        self.transport.write(head + body)
        self.expected_content_length = 0
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _head(self, message: Any) -> bytes | None:
        status, headers, common = message["status"], message.get("headers"), self._common_lines()
        if common is None or not headers or not self.keep_alive:
            return None
        named = dict(headers)
        if not (self._good_names.issuperset(named) or self._are_good(named)):
            return None
        lines: bytes = b"\r\n".join(map(b": ".join, headers))
        line_ends = 2 * len(headers) - 2
        if len(lines.translate(None, _NO_VALUE_HOLDS)) != len(lines) - line_ends:
            return None
        if b"content-length" in named:
            self.expected_content_length = int(named[b"content-length"])
            self.chunked_encoding = False
        elif status not in _BODILESS:
            return None
        return b"%b%b%b\r\n\r\n" % (STATUS_LINE[status], common, lines)

    def _are_good(self, names: Collection[bytes]) -> bool:
        good = all(map(_NAME.fullmatch, names)) and _FRAMING.isdisjoint(names)
        if good and len(self._good_names) < _MOST_NAMES:
            self._good_names.update(names)
        return good

    def _common_lines(self) -> bytes | None:
        """The headers of every answer, which Uvicorn makes anew each second."""
        headers, lines = Cycle._common
        if headers is not self.default_headers:
            headers = self.default_headers
            usual = _FRAMING.isdisjoint(name.lower() for name, _ in headers)
            lines = b"".join(b"%b: %b\r\n" % header for header in headers) if usual else None
            Cycle._common = headers, lines
        return lines


class Protocol(HttpToolsProtocol):
    """A connection."""

    _idle_since = 0.0

    @property
    def idle(self) -> bool:
        """Nothing has come that is not answered."""
        answered = self.cycle.scope if self.cycle and self.cycle.response_complete else None
        return self.scope is answered  # a request that begins has a new one

    def announce_close(self) -> None:
        """With the answer that is being made, if it has not begun."""
        if self.cycle and not (self.cycle.response_started or self.pipeline):
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def _unset_keepalive_if_required(self) -> None:
        """The timer runs on, and looks when it is due: setting and cancelling one for each request is dear."""

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if not self.idle:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_in(left)
        else:
            super().timeout_keep_alive_handler()

    def _look_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # it was sent before the last one was answered
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
