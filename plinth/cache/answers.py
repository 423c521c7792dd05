"""An answer as it is kept: its bytes, compressed and not, with the headers it came with; or that there is none."""

import zlib
from dataclasses import dataclass
from time import time
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from plinth.http.compression import accepts_gzip, compressible
from plinth.http.conditional import Headers, conditions_of, gzip_etag, is_unchanged, kept_by_304
from plinth.http.problems import MEDIA_TYPE, problem

GZIP_FORMAT = 16 + zlib.MAX_WBITS
_PROBLEM = {"type", "title", "status", "detail", "request_id"}


class Variant:
    """One encoding of an answer."""

    __slots__ = ("body", "headers", "headers_of_304", "named")

    def __init__(self, headers: Headers, body: bytes) -> None:
        self.headers = [*headers, (b"content-length", b"%d" % len(body))]
        self.body = body
        self.headers_of_304 = kept_by_304(headers)
        self.named = dict(headers)


@dataclass(slots=True)
class Answer:
    plain: Variant
    gzip: Variant | None
    made_at: float
    """Unix time, in seconds."""

    async def send(self, told: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        variant = self.gzip if self.gzip and accepts_gzip(_accept_encoding(scope)) else self.plain
        conditions = conditions_of(scope)
        if conditions and is_unchanged(conditions, variant.named):
            status, headers, body = 304, variant.headers_of_304, b""
        else:
            status, headers, body = 200, variant.headers, variant.body
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *told]})
        await send({"type": "http.response.body", "body": body})


@dataclass(slots=True)
class Missing:
    """A 404, which is made anew for each: it holds the request's id."""

    detail: str
    made_at: float

    async def send(self, told: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(404, self.detail, headers={"Cache-Control": "no-cache"})
        response.raw_headers += told
        await response(scope, receive, send)


def made(headers: Headers, body: bytes, gzip_level: int, gzip_minimum_bytes: int) -> bytes:
    """An answer of 200, packed. Its gzip variant is made once, here."""
    named = dict(headers)
    can = bool(gzip_level) and compressible(named.get(b"content-type", b"")) and b"content-encoding" not in named
    zipped = zlib.compress(body, gzip_level, GZIP_FORMAT) if can and len(body) >= gzip_minimum_bytes else b""
    kept = [header for header in headers if header[0] != b"content-length"]
    if can and not any(name == b"vary" and b"accept-encoding" in value.lower() for name, value in headers):
        kept.append((b"vary", b"Accept-Encoding"))
    texts = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in kept]
    return orjson.dumps([texts, time(), len(body)]) + b"\n" + body + zipped


def missing(headers: Headers, body: bytes) -> bytes | None:
    """A 404, packed; None if it says more than a problem does by itself."""
    if dict(headers).get(b"content-type") != MEDIA_TYPE.encode():
        return None
    document = orjson.loads(body)
    return orjson.dumps([document["detail"], time()]) if document.keys() == _PROBLEM else None


def read(packed: bytes) -> Answer | Missing:
    """Raises ValueError for what `made` and `missing` have not made."""
    head, _, rest = packed.partition(b"\n")
    try:
        kept, made_at, *lengths = orjson.loads(head)
        if not lengths:
            return Missing(kept + "", float(made_at))
        headers, (length,) = _raw(kept), lengths
        plain, gzip = Variant(headers, rest[:length]), None
        if rest[length:]:
            tagged = [(name, gzip_etag(value) if name == b"etag" else value) for name, value in headers]
            gzip = Variant([*tagged, (b"content-encoding", b"gzip")], rest[length:])
    except (TypeError, AttributeError) as error:
        raise ValueError("This is no answer") from error
    return Answer(plain, gzip, float(made_at))


def _raw(headers: Any) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _accept_encoding(scope: Scope) -> bytes:
    return b",".join([value for name, value in scope["headers"] if name == b"accept-encoding"])
