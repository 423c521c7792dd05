"""Cached responses, a 200 with its bytes or a 404: how they are packed for the store, and how they are sent."""

import zlib
from dataclasses import dataclass
from time import time
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from plinth.http import problem
from plinth.http.compression import accepts_gzip, compressible
from plinth.http.conditional import PRECONDITION_FAILED, Headers, conditions_of, evaluate, gzip_etag, kept_by_304
from plinth.http.problems import MEDIA_TYPE

_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_PROBLEM_MEMBERS = {"type", "title", "status", "detail", "request_id"}


class Variant:
    """One content coding of a response."""

    __slots__ = ("body", "by_name", "headers", "headers_of_304")

    def __init__(self, headers: Headers, body: bytes) -> None:
        self.headers = [*headers, (b"content-length", b"%d" % len(body))]
        self.body = body
        self.headers_of_304 = kept_by_304(headers)
        self.by_name = dict(headers)


@dataclass(slots=True)
class CachedResponse:
    plain: Variant
    gzip: Variant | None
    created_at: float
    """Unix time in seconds."""

    async def send(self, extra_headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the variant that the client accepts, 304 if the client has it, or 412 if it expects another."""
        variant = self.gzip if self.gzip and accepts_gzip(_accept_encoding(scope)) else self.plain
        conditions = conditions_of(scope)
        status = evaluate(conditions, variant.by_name) if conditions else 200
        headers, body = variant.headers, variant.body
        if status == 412:
            await problem(412, PRECONDITION_FAILED)(scope, receive, send)
            return
        if status == 304:
            headers, body = variant.headers_of_304, b""
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra_headers]})
        await send({"type": "http.response.body", "body": body})


@dataclass(slots=True)
class CachedNotFound:
    """A 404. Its body is built for each request, since it contains the request id."""

    detail: str
    created_at: float
    """Unix time in seconds."""

    async def send(self, extra_headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(404, self.detail, headers={"Cache-Control": "no-cache"})
        response.raw_headers += extra_headers
        await response(scope, receive, send)


def pack(headers: Headers, body: bytes, gzip_level: int, gzip_minimum_bytes: int) -> bytes:
    """Pack a 200 for the store. It is compressed here, once; `gzip_level` 0 is never."""
    by_name = dict(headers)
    may_gzip = bool(gzip_level) and compressible(by_name.get(b"content-type", b""))
    may_gzip = may_gzip and b"content-encoding" not in by_name
    zipped = zlib.compress(body, gzip_level, _GZIP_FORMAT) if may_gzip and len(body) >= gzip_minimum_bytes else b""
    stored = [header for header in headers if header[0] != b"content-length"]
    if may_gzip and not any(name == b"vary" and b"accept-encoding" in value.lower() for name, value in headers):
        stored.append((b"vary", b"Accept-Encoding"))
    texts = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in stored]
    return orjson.dumps([texts, time(), len(body)]) + b"\n" + body + zipped


def pack_not_found(headers: Headers, body: bytes) -> bytes | None:
    """Pack a 404 for the store; None unless `problem` can build the same body from its detail."""
    if dict(headers).get(b"content-type") != MEDIA_TYPE.encode():
        return None
    document = orjson.loads(body)
    return orjson.dumps([document["detail"], time()]) if document.keys() == _PROBLEM_MEMBERS else None


def unpack(packed: bytes) -> CachedResponse | CachedNotFound:
    """Raises ValueError for bytes that neither `pack` nor `pack_not_found` wrote."""
    head, _, rest = packed.partition(b"\n")
    try:
        content, created_at, *lengths = orjson.loads(head)
        if not lengths:
            return CachedNotFound(content + "", float(created_at))
        headers, (length,) = _raw(content), lengths
        plain, gzip = Variant(headers, rest[:length]), None
        if rest[length:]:
            with_etag = [(name, gzip_etag(value) if name == b"etag" else value) for name, value in headers]
            gzip = Variant([*with_etag, (b"content-encoding", b"gzip")], rest[length:])
    except (TypeError, AttributeError) as error:
        raise ValueError("These bytes are not a packed response") from error
    return CachedResponse(plain, gzip, float(created_at))


def _raw(headers: Any) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _accept_encoding(scope: Scope) -> bytes:
    return b",".join([value for name, value in scope["headers"] if name == b"accept-encoding"])
