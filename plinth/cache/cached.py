"""Cached responses: how they are packed for the store, and how they are sent.

A 200 is stored with its bytes, a 404 without. A 5xx is packed for those who wait for the same load, and not stored.
"""

import zlib
from dataclasses import dataclass
from time import time
from typing import Any, ClassVar

import orjson
from starlette.types import Receive, Scope, Send

from plinth.http.compression import accepts_gzip, compressible
from plinth.http.conditional import PRECONDITION_FAILED, Headers, conditions_of, evaluate, gzip_etag, kept_by_304
from plinth.http.problems import MEDIA_TYPE, problem
from plinth.telemetry.context import request_id

_BYTES_PER_HEADER = 250
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_PROBLEM_MEMBERS = {"type", "title", "status", "detail", "request_id"}
_NO_CACHE = b"cache-control", b"no-cache"
_HEADERS_OF_404: Headers = [_NO_CACHE, (b"content-type", MEDIA_TYPE.encode())]
_LEFT_OUT_OF_404 = {b"content-length", b"vary"}  # it is never compressed


class Variant:
    """One content coding of a response."""

    __slots__ = ("body", "by_name", "headers", "headers_of_304")

    def __init__(self, headers: Headers, body: bytes) -> None:
        self.headers = [*headers, (b"content-length", b"%d" % len(body))]
        self.body = body
        self.headers_of_304 = kept_by_304(headers)
        self.by_name = dict(headers)


class CachedResponse:
    __slots__ = ("created_at", "gzip", "gzip_level", "plain", "status")

    def __init__(self, status: int, headers: Headers, body: bytes, gzip_level: int, created_at: float) -> None:
        """`gzip_level` is 0 for what is not compressed, `created_at` Unix time in seconds."""
        self.status = status
        self.plain = Variant(headers, body)
        self.gzip: Variant | None = None
        self.gzip_level = gzip_level
        self.created_at = created_at

    @property
    def bytes(self) -> int:
        """What it takes in memory at most: the compressed body is made when the first client accepts it."""
        headers = sum(len(name) + len(value) + _BYTES_PER_HEADER for name, value in self.plain.headers)
        return 2 * headers + len(self.plain.body) * (2 if self.gzip_level else 1)

    async def send(self, extra_headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the variant that the client accepts, 304 if the client has it, or 412 if it expects another."""
        variant = self._gzip() if self.gzip_level and accepts_gzip(_accept_encoding(scope)) else self.plain
        status, headers, body = self.status, variant.headers, variant.body
        if status == 200 and (conditions := conditions_of(scope)):
            status = evaluate(conditions, variant.by_name)
        if status == 412:
            await problem(412, PRECONDITION_FAILED)(scope, receive, send)
            return
        if status == 304:
            headers, body = variant.headers_of_304, b""
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra_headers]})
        await send({"type": "http.response.body", "body": body})

    def _gzip(self) -> Variant:
        """Compressed once, for the first client that accepts it."""
        if self.gzip is None:
            headers = self.plain.headers[:-1]
            with_etag = [(name, gzip_etag(value) if name == b"etag" else value) for name, value in headers]
            zipped = zlib.compress(self.plain.body, self.gzip_level, _GZIP_FORMAT)
            self.gzip = Variant([*with_etag, (b"content-encoding", b"gzip")], zipped)
        return self.gzip


@dataclass(slots=True)
class CachedNotFound:
    """A 404. Its body contains the id of the request that it answers."""

    status: ClassVar[int] = 404
    before: str
    after: str
    """The body, without the request id between the two."""
    created_at: float
    """Unix time in seconds."""

    async def send(self, extra_headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        body = f"{self.before}{request_id.get()}{self.after}".encode()
        headers = [*_HEADERS_OF_404, (b"content-length", b"%d" % len(body)), *extra_headers]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def build(status: int, headers: Headers, body: bytes, gzip_level: int, gzip_minimum_bytes: int) -> CachedResponse:
    """Make a response that can be cached; `gzip_level` 0 is never compressed."""
    by_name = dict(headers)
    may_gzip = bool(gzip_level) and compressible(by_name.get(b"content-type", b""))
    may_gzip = may_gzip and b"content-encoding" not in by_name
    stored = [header for header in headers if header[0] != b"content-length"]
    if may_gzip and not any(name == b"vary" and b"accept-encoding" in value.lower() for name, value in headers):
        stored.append((b"vary", b"Accept-Encoding"))
    level = gzip_level if may_gzip and len(body) >= gzip_minimum_bytes else 0
    return CachedResponse(status, stored, body, level, time())


def pack(response: CachedResponse | CachedNotFound) -> bytes:
    if isinstance(response, CachedNotFound):
        return orjson.dumps([response.before, response.created_at, response.after])
    texts = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.plain.headers[:-1]]
    return orjson.dumps([texts, response.created_at, response.gzip_level]) + b"\n" + response.plain.body


def build_not_found(headers: Headers, body: bytes) -> CachedNotFound | None:
    """Make a 404 that can be cached; None for one that is more than the problem that `NotFoundError` becomes."""
    if {_NO_CACHE, *(header for header in headers if header[0] not in _LEFT_OUT_OF_404)} != {*_HEADERS_OF_404}:
        return None
    id = str(request_id.get())
    before, found, after = body.decode().rpartition(id)
    known = found and id not in before and orjson.loads(body).keys() == _PROBLEM_MEMBERS
    return CachedNotFound(before, after, time()) if known else None


def unpack(packed: bytes) -> CachedResponse | CachedNotFound:
    """Raises ValueError for bytes that `pack` did not write."""
    head, _, body = packed.partition(b"\n")
    try:
        content, created_at, more = orjson.loads(head)
        if isinstance(content, str):
            return CachedNotFound(content, more + "", float(created_at))
        return CachedResponse(200, _raw(content), body, int(more), float(created_at))
    except (TypeError, AttributeError) as error:
        raise ValueError("These bytes are not a packed response") from error


def _raw(headers: Any) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _accept_encoding(scope: Scope) -> bytes:
    return b",".join([value for name, value in scope["headers"] if name == b"accept-encoding"])
