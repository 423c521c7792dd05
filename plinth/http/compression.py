"""Response compression: Starlette's gzip, corrected where HTTP caches and clients depend on it.

Starlette compresses for `Accept-Encoding: gzip;q=0`, gives both encodings the same strong ETag, and sends no `Vary`
with a response that is too small to be compressed.
"""

import re
from collections.abc import Awaitable, Mapping
from functools import lru_cache

from starlette.middleware import gzip
from starlette.types import Message, Receive, Scope, Send

from plinth.http.conditional import gzip_etag

_COMPRESSIBLE = {b"application/" + name for name in (b"javascript", b"json", b"jsonl", b"x-ndjson", b"xml", b"yaml")}
_UNTOUCHED_STATUSES = frozenset({204, 206, 304})
_MAX_KNOWN = 200
"""Bytes of a header whose meaning is kept."""
_WEIGHT = re.compile(r"\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*")


class GZipMiddleware(gzip.GZipMiddleware):
    """Compresses JSON, text, XML and JavaScript of `minimum_size` bytes or more at `compresslevel` (1 to 9).

    Responses that are already encoded, partial (206), without a body, or an event stream pass unchanged. Bodies of
    `thread_minimum_size` bytes or more are compressed in a thread, so that other requests do not wait for it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        responder: GZipResponder | None = None

        # Not a coroutine: returning the awaitable saves one coroutine call per message.
        def compressing_send(message: Message) -> Awaitable[None]:
            nonlocal responder
            if message["type"] == "http.response.start":
                headers = dict(message.get("headers", ()))
                if may_be_compressed(message["status"], headers):
                    # The length of a stream is not known.
                    size = int(headers.get(b"content-length", self.minimum_size))
                    if size < self.minimum_size or not accepts_gzip(_accept_encoding(scope)):
                        return send(_varying(message))
                    responder = GZipResponder(self, send)
                    # A copy: Starlette edits the list, which belongs to a response that may be sent again.
                    message = {**message, "headers": [*message["headers"]]}
            return send(message) if responder is None else responder.send_with_compression(message)

        await self.app(scope, receive, compressing_send)


class GZipResponder(gzip.GZipResponder):
    """Compresses one response, and gives the compressed one an ETag of its own."""

    def __init__(self, middleware: GZipMiddleware, send: Send) -> None:
        super().__init__(
            middleware.app,
            middleware.minimum_size,
            middleware.compresslevel,
            thread_minimum_size=middleware.thread_minimum_size,
            exclude_content_types=(),
        )

        async def tagging_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                compressed = b"content-encoding" in dict(message["headers"])
                message = _tagged(message) if compressed else _varying(message)
            await send(message)

        self.send = tagging_send


def may_be_compressed(status: int, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a response is of a kind that is compressed if it is large enough and the client accepts gzip."""
    if status in _UNTOUCHED_STATUSES or b"content-encoding" in headers:
        return False
    return compressible(headers.get(b"content-type", b""))


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Return whether `Accept-Encoding` allows gzip and does not prefer the identity coding (RFC 9110 §12.5.3).

    An empty or missing header does not allow it.
    """
    # Clients send few distinct values; both bounds are on what hostile ones can make us keep.
    known = _accepts_gzip if len(accept_encoding) <= _MAX_KNOWN else _accepts_gzip.__wrapped__
    return known(accept_encoding)


@lru_cache(maxsize=64)
def _accepts_gzip(accept_encoding: bytes) -> bool:
    weights: dict[str, float] = {}
    for member in accept_encoding.decode("latin-1").lower().split(","):
        coding, weighted, parameter = member.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        weights[coding.strip()] = 0.0 if weighted and not weight else float(weight[1]) if weight else 1.0
    gzip_weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip_weight > 0 and gzip_weight >= weights.get("identity", 0.0)


def compressible(content_type: bytes) -> bool:
    """Return whether bodies of this Content-Type are worth compressing. Event streams are not: events must not wait."""
    known = _compressible if len(content_type) <= _MAX_KNOWN else _compressible.__wrapped__
    return known(content_type)


@lru_cache(maxsize=64)
def _compressible(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"text/event-stream":
        return False
    return media_type in _COMPRESSIBLE or media_type.startswith(b"text/") or media_type.endswith((b"+json", b"+xml"))


def _accept_encoding(scope: Scope) -> bytes:
    return b",".join([value for name, value in scope["headers"] if name == b"accept-encoding"])


def _varying(start: Message) -> Message:
    if any(name == b"vary" and b"accept-encoding" in value.lower() for name, value in start["headers"]):
        return start
    return {**start, "headers": [*start["headers"], (b"vary", b"Accept-Encoding")]}


def _tagged(start: Message) -> Message:
    headers = [(name, gzip_etag(value) if name == b"etag" else value) for name, value in start["headers"]]
    return {**start, "headers": headers}
