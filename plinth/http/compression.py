"""Response compression: Starlette's gzip, corrected where HTTP caches and clients depend on it.

Starlette compresses for `Accept-Encoding: gzip;q=0`, gives both encodings the same strong ETag, and sends no `Vary`
with a response that is too small to be compressed.
"""

import re
from functools import lru_cache

from starlette.middleware import gzip
from starlette.types import Message, Receive, Scope, Send

from plinth.http.conditional import Headers, gzip_etag

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
        accept_encoding = b",".join([value for name, value in scope["headers"] if name == b"accept-encoding"])
        if not accepts_gzip(accept_encoding):
            await self.app(scope, receive, _varying(send))
            return
        responder = GZipResponder(
            self.app, self.minimum_size, self.compresslevel, thread_minimum_size=self.thread_minimum_size
        )
        await responder(scope, receive, send)


class GZipResponder(gzip.GZipResponder):
    """Compresses one response if `may_be_compressed` allows it, and gives the compressed one an ETag of its own."""

    allowed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        varying_send = _varying(send)

        async def tagging_send(message: Message) -> None:
            if self.allowed and message["type"] == "http.response.start" and _has(message, b"content-encoding"):
                headers = [(name, gzip_etag(value) if name == b"etag" else value) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await varying_send(message)

        await super().__call__(scope, receive, tagging_send)

    async def send_with_compression(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.allowed = may_be_compressed(message)
            # A copy: Starlette edits the list, which belongs to a response that may be sent again.
            message = {**message, "headers": [*message.get("headers", ())]}
        if self.allowed:
            await super().send_with_compression(message)
        else:
            await self.send(message)


def may_be_compressed(start: Message) -> bool:
    """Return whether a response is of a kind that is compressed if it is large enough and the client accepts gzip."""
    if start["status"] in _UNTOUCHED_STATUSES or _has(start, b"content-encoding"):
        return False
    return compressible(next((value for name, value in start.get("headers", ()) if name == b"content-type"), b""))


# Clients send few distinct values; the size bounds what hostile ones can make us keep.
@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: bytes) -> bool:
    """Return whether `Accept-Encoding` allows gzip and does not prefer the identity coding (RFC 9110 §12.5.3).

    An empty or missing header does not allow it.
    """
    weights: dict[str, float] = {}
    for member in accept_encoding.decode("latin-1").lower().split(","):
        coding, weighted, parameter = member.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        weights[coding.strip()] = 0.0 if weighted and not weight else float(weight[1]) if weight else 1.0
    gzip_weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip_weight > 0 and gzip_weight >= weights.get("identity", 0.0)


@lru_cache(maxsize=64)
def compressible(content_type: bytes) -> bool:
    """Return whether bodies of this Content-Type are worth compressing. Event streams are not: events must not wait."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"text/event-stream":
        return False
    return media_type in _COMPRESSIBLE or media_type.startswith(b"text/") or media_type.endswith((b"+json", b"+xml"))


def _varying(send: Send) -> Send:
    """Wrap `send` so that it adds `Vary: Accept-Encoding` to every response that may be compressed."""

    async def varying_send(message: Message) -> None:
        if message["type"] == "http.response.start" and may_be_compressed(message):
            headers: Headers = [*message["headers"]]
            if not any(name == b"vary" and b"accept-encoding" in value.lower() for name, value in headers):
                message = {**message, "headers": [*headers, (b"vary", b"Accept-Encoding")]}
        await send(message)

    return varying_send


def _has(start: Message, header: bytes) -> bool:
    return any(name == header for name, _ in start.get("headers", ()))
