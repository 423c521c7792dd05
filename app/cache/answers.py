"""An answer as it is kept: its bytes, compressed and not, and the validators by which a client asks for it again."""

import zlib
from dataclasses import dataclass, field
from hashlib import blake2b
from time import time
from typing import Any

import orjson
from starlette.types import Send

from app.http.compression import accepts_gzip, compressible

Headers = list[tuple[bytes, bytes]]

GZIP_FORMAT = 16 + zlib.MAX_WBITS


@dataclass(slots=True)
class Variant:
    """One encoding of an answer."""

    etag: bytes
    headers: Headers
    body: bytes


@dataclass(slots=True)
class Answer:
    plain: Variant
    gzip: Variant | None
    made_at: float
    """Unix time, in seconds."""
    shared: Headers = field(default_factory=list)
    """What a 304 says, too, but for the ETag (RFC 9110 §15.4.5)."""

    async def send(self, accept_encoding: bytes, if_none_match: bytes, told: Headers, send: Send) -> None:
        variant = self.gzip if self.gzip and accepts_gzip(accept_encoding) else self.plain
        if if_none_match and self._is_one_of(if_none_match):
            headers = [*self.shared, (b"etag", variant.etag), *told]
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [*variant.headers, *told]})
        await send({"type": "http.response.body", "body": variant.body})

    def _is_one_of(self, etags: bytes) -> bool:
        """By weak comparison (RFC 9110 §13.1.2): the encoding in which a client has it does not matter."""
        ours = {self.plain.etag, self.gzip.etag if self.gzip else self.plain.etag}
        return etags.strip() == b"*" or any(each.strip().removeprefix(b"W/") in ours for each in etags.split(b","))


def made(headers: Headers, body: bytes, max_age: int, gzip_level: int, gzip_minimum_bytes: int) -> bytes:
    """An answer of 200, packed. Its gzip variant is made once, here."""
    kind = dict(headers).get(b"content-type", b"")
    can = bool(gzip_level) and compressible(kind)
    zipped = zlib.compress(body, gzip_level, GZIP_FORMAT) if can and len(body) >= gzip_minimum_bytes else b""
    cached = b"public, max-age=%d" % max_age if max_age else b"public, no-cache"
    own = {b"content-length", b"etag", b"cache-control", b"vary"}
    vary = [value for name, value in headers if name == b"vary"]
    if can and b"accept-encoding" not in b",".join(vary).lower():
        vary.append(b"Accept-Encoding")
    shared = [(b"cache-control", cached)] + ([(b"vary", b", ".join(vary))] if vary else [])
    kept = [header for header in headers if header[0] not in own]
    digest = blake2b(body, digest_size=8).hexdigest()
    texts = [[[name.decode("latin-1"), value.decode("latin-1")] for name, value in each] for each in (kept, shared)]
    return orjson.dumps([*texts, digest, time(), len(body)]) + b"\n" + body + zipped


def read(packed: bytes) -> Answer:
    """Raises ValueError for what `made` has not made."""
    head, _, rest = packed.partition(b"\n")
    try:
        kept, shared, digest, made_at, length = orjson.loads(head)
        kept, shared = _raw(kept), _raw(shared)
        plain = _variant([*kept, *shared], f'"{digest}"', rest[:length])
        gzip = None
        if rest[length:]:
            headers = [*kept, *shared, (b"content-encoding", b"gzip")]
            gzip = _variant(headers, f'"{digest}-gzip"', rest[length:])
    except (TypeError, AttributeError) as error:
        raise ValueError("This is no answer") from error
    return Answer(plain, gzip, float(made_at), shared)


def _variant(headers: Headers, etag: str, body: bytes) -> Variant:
    tag = etag.encode()
    return Variant(tag, [*headers, (b"etag", tag), (b"content-length", b"%d" % len(body))], body)


def _raw(headers: Any) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
