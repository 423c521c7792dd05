"""What compresses well is compressed for whoever takes gzip, and waits for nothing: a stream leaves chunk by chunk."""

import re
import zlib
from collections.abc import Awaitable
from functools import lru_cache

from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.conditional import Headers, gzip_etag

_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_COMPRESSIBLE = frozenset(
    {
        b"application/javascript",
        b"application/json",
        b"application/jsonl",
        b"application/x-ndjson",
        b"application/xml",
        b"application/yaml",
    }
)
_UNTOUCHED_STATUSES = frozenset({204, 206, 304})
# Compressing more than this takes milliseconds, which all other requests would wait.
_MOST_ON_THE_LOOP_BYTES = 256 * 1024
_WEIGHT = re.compile(r"\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*")


class GZipMiddleware:
    """Compresses JSON, text, XML and JavaScript of `minimum_bytes` or more at `level` (1 to 9).

    Answers that are encoded already, partial (206), without a body, or an event stream pass as they are.
    """

    def __init__(self, app: ASGIApp, level: int, minimum_bytes: int) -> None:
        self.app = app
        self.level = level
        self.minimum_bytes = minimum_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(self, scope, send)
        try:
            await self.app(scope, receive, answer.send)
        finally:
            if answer.held is not None:
                await answer.release()


class _Answer:
    """One answer on its way out: passed on as it is, held until its length is known, or compressed as a stream."""

    __slots__ = ("gzip", "held", "pass_on", "scope", "stream")

    def __init__(self, gzip: GZipMiddleware, scope: Scope, send: Send) -> None:
        self.gzip = gzip
        self.scope = scope
        self.pass_on = send
        self.held: Message | None = None
        self.stream: zlib._Compress | None = None

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self._decide(message)
            return self.pass_on(message) if self.held is None else _nothing()
        if message["type"] != "http.response.body":
            return self._by_another_way(message)
        if self.stream is not None:
            return self.pass_on(_chunk(self.stream, message))
        if self.held is not None:
            return self._first_body(self.held, message)
        return self.pass_on(message)

    async def release(self) -> None:
        """Send the headers that were held for a body that does not come, or not as one."""
        if self.held is not None:
            start, self.held = self.held, None
            await self.pass_on(start)

    async def _by_another_way(self, message: Message) -> None:
        await self.release()
        await self.pass_on(message)

    def _decide(self, start: Message) -> None:
        content_type = vary = b""
        length = None
        for name, value in start.get("headers", ()):
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                length = value
            elif name == b"vary":
                vary = value
            elif name == b"content-encoding":
                return
        if start["status"] in _UNTOUCHED_STATUSES or not compressible(content_type):
            return
        if b"accept-encoding" not in vary.lower():
            start["headers"] = [*start["headers"], (b"vary", b"Accept-Encoding")]
        if length is not None and int(length) < self.gzip.minimum_bytes:
            return
        if not accepts_gzip(b",".join([value for name, value in self.scope["headers"] if name == b"accept-encoding"])):
            return
        if length is None:
            self._compress_stream(start)
        else:
            # The length will be another, and is sent before the body.
            self.held = start

    def _compress_stream(self, start: Message) -> "zlib._Compress":
        start["headers"] = _encoded(start["headers"])
        self.stream = zlib.compressobj(self.gzip.level, zlib.DEFLATED, _GZIP_FORMAT)
        return self.stream

    async def _first_body(self, start: Message, message: Message) -> None:
        self.held = None
        if message.get("more_body", False):
            stream = self._compress_stream(start)
            await self.pass_on(start)
            await self.pass_on(_chunk(stream, message))
            return
        body = message.get("body", b"")
        if len(body) > _MOST_ON_THE_LOOP_BYTES:
            body = await to_thread.run_sync(zlib.compress, body, self.gzip.level, _GZIP_FORMAT)
        else:
            body = zlib.compress(body, self.gzip.level, _GZIP_FORMAT)
        start["headers"] = [*_encoded(start["headers"]), (b"content-length", b"%d" % len(body))]
        await self.pass_on(start)
        await self.pass_on({"type": "http.response.body", "body": body})


async def _nothing() -> None:
    pass


def _chunk(stream: "zlib._Compress", message: Message) -> Message:
    more = message.get("more_body", False)
    body = stream.compress(message.get("body", b""))
    # Flushed, so that the client can read this chunk before there is a next one.
    body += stream.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)
    return {"type": "http.response.body", "body": body, "more_body": more}


def _encoded(headers: Headers) -> Headers:
    encoded = [(name, gzip_etag(value) if name == b"etag" else value) for name, value in headers]
    return [*(header for header in encoded if header[0] != b"content-length"), (b"content-encoding", b"gzip")]


# A few browsers and clients send all the values there are; the size bounds what others can make us keep.
@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: bytes) -> bool:
    """Whether gzip may be used, and is not liked less than no coding (RFC 9110 §12.5.3); not if nothing is said."""
    weights: dict[str, float] = {}
    for member in accept_encoding.decode("latin-1").lower().split(","):
        coding, weighted, parameter = member.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        weights[coding.strip()] = 0.0 if weighted and not weight else float(weight[1]) if weight else 1.0
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


@lru_cache(maxsize=64)
def compressible(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"text/event-stream":
        return False
    return media_type in _COMPRESSIBLE or media_type.startswith(b"text/") or media_type.endswith((b"+json", b"+xml"))
