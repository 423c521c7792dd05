"""Bounds how deeply the JSON of a request is nested.

Python's parser ends at a depth of about a thousand. Up to there each level costs it, Pydantic and garbage collection
time, and Pydantic and orjson write no more than 255 levels: what a service stores and returns would become a 500.
"""

from collections.abc import Awaitable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BRACKETS = b"[]{}"
_OTHERS = bytes({*range(256)} - {*_BRACKETS})
_STEPS = {byte: 1 if byte in b"[{" else -1 for byte in _BRACKETS}


class JsonDepthMiddleware:
    """Answers 400 to JSON with more than `most` levels of arrays and objects, before it is parsed.

    It reads along as the endpoint reads the body, so that one which is streamed is not held in memory. Place it
    innermost, inside of the limit on the size.
    """

    def __init__(self, app: ASGIApp, most: int = 64) -> None:
        self.app = app
        self.most = most

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and _is_json(scope):
            receive = _Counting(receive, self.most).receive
        return self.app(scope, receive, send)


def _is_json(scope: Scope) -> bool:
    """All that FastAPI parses as JSON, such as `application/problem+json`."""
    return any(name == b"content-type" and b"json" in value.lower() for name, value in scope["headers"])


class _Counting:
    """Counts brackets outside of strings. After the end of valid JSON the count has no effect: parsing fails."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._depth = 0
        self._in_string = False
        self._escape = b""
        """A backslash at the end of the last part, which belongs to the first character of the next."""

    async def receive(self) -> Message:
        message = await self._receive()
        if part := message.get("body", b""):
            self._count(self._escape + part)
        return message

    def _count(self, part: bytes) -> None:
        if b"\0" in part:  # as in UTF-16 and UTF-32, which Python's parser detects and reads
            raise HTTPException(400, "The request body must be JSON in UTF-8 (RFC 8259), which has no NUL bytes.")
        self._escape = b""
        if b"\\" in part:
            part = part.replace(rb"\\", b"").replace(rb"\"", b"")
            if part.endswith(b"\\"):
                self._escape = b"\\"
        pieces = part.split(b'"')
        for bracket in b"".join(pieces[self._in_string :: 2]).translate(None, _OTHERS):
            self._depth += _STEPS[bracket]
            if self._depth > self._most:
                raise HTTPException(400, "The request body is nested too deeply.")
        self._in_string ^= len(pieces) % 2 == 0
