"""Responses with the bytes of a file, or one range of them (RFC 9110 §14)."""

import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from plinth.http.conditional import conditions_of, evaluate
from plinth.http.problems import problem

_RANGE = re.compile(rb"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_MOST_DIGITS = 4000


class RangeResponse(StreamingResponse):
    """Sends the `size` bytes of a file, or those that `Range` names: 206, and 416 where there are none.

    `read(start, end)` yields them. Its first chunk is awaited before the response starts, so that what it raises until
    then becomes a problem. `etag` is the strong ETag of these bytes, in quotes. Preconditions are evaluated by
    `ConditionalMiddleware`. Several ranges at once, and `If-Range` with a date, are answered by the whole file.
    """

    def __init__(
        self,
        read: Callable[[int, int], AsyncGenerator[bytes, None]],
        *,
        size: int,
        media_type: str,
        etag: str,
        modified_at: datetime,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        validators = {"ETag": etag, "Last-Modified": format_datetime(modified_at.astimezone(UTC), usegmt=True)}
        lengths = {"Accept-Ranges": "bytes", "Content-Length": str(size)}
        super().__init__((), headers={**(headers or {}), **validators, **lengths}, media_type=media_type)
        self.etag, self.size, self.read = etag.encode(), size, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._range(scope)
        start, end = found or (0, self.size)
        if found and start >= end:
            detail = f"The file has {self.size} bytes, and none of them is in this range."
            headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes */{self.size}"}
            await problem(416, detail, headers=headers)(scope, receive, send)
            return
        if found:
            self.status_code = 206
            self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{self.size}"
            self.headers["Content-Length"] = str(end - start)
        async with aclosing(self.read(start, end)) as chunks:
            self.body_iterator = _chained(await anext(chunks, b""), chunks)
            await super().__call__(scope, receive, send)

    def _range(self, scope: Scope) -> tuple[int, int] | None:
        condition = _value(scope, b"if-range")
        if condition is not None and condition != self.etag:
            return None
        # Where a precondition fails, the middleware replaces the whole response (§13.2.2).
        if evaluate(conditions_of(scope), dict(self.raw_headers)) != 200:
            return None
        return parse_range(_value(scope, b"range") or b"", self.size)


def parse_range(value: bytes, size: int) -> tuple[int, int] | None:
    """Return the first byte and the end of the one range that a header names; an empty one if no byte is in it.

    None if there is nothing to obey: another unit, several ranges, or no valid one (§14.2).
    """
    match = _RANGE.fullmatch(value)
    first, last = map(_number, match.groups()) if match else (None, None)
    if first is None:
        # There is no last byte of an empty file, and still the whole of it.
        return None if last is None or (last and not size) else (max(0, size - last), size)
    if last is not None and last < first:
        return None
    return min(first, size), size if last is None else min(last + 1, size)


def _number(digits: bytes) -> int | None:
    """The number of a position. Python reads no more than 4,300 digits, and no file has so many bytes."""
    if not digits:
        return None
    significant = digits.lstrip(b"0")
    return int(significant or b"0") if len(significant) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _value(scope: Scope, name: bytes) -> bytes | None:
    """The value of a header. Sent twice, it is a list (RFC 9110 §5.3)."""
    return b", ".join(value for header, value in scope["headers"] if header == name) or None


async def _chained(first: bytes, chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    async for chunk in chunks:
        yield chunk
