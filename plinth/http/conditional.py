"""Conditional requests (RFC 9110 §13): what is unchanged is not sent again, and what has changed is not overwritten.

The ETag of a row is `"<version>.<hash>"`: the hash of the bytes, which also change where the row does not (a product
shows its category's name). That of anything else is `"<hash>"`. What is compressed has `-gzip` behind it. So
`If-None-Match` compares the whole, and `If-Match` the version alone.
"""

import re
from collections.abc import Awaitable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

_KEY = "validators"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
# RFC 9110 §15.4.5; the others say what a body is.
_KEPT_BY_304 = frozenset(
    {b"age", b"cache-control", b"content-location", b"date", b"etag", b"expires", b"set-cookie", b"vary"}
)
_OPAQUE = re.compile(rb'"([^"]*)"')
_TAG = r'(W/)?"[!#-~]*"'
# No two ways to read the same text, so that none of it takes long.
_TAGS = re.compile(rf"[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG})*[ \t,]*".replace("#-~", "#-~\x80-\xff").encode("latin-1"))
_VERSION = re.compile(rb"([0-9]{1,10})(\..*)?")
_LARGEST_VERSION = 2**31 - 1

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "Only if it still is one of these versions: ETags of answers, or `*` for any.",
    "schema": {"type": "string", "pattern": rf"^(\*|{_TAG}(, ?{_TAG})*)$", "examples": ['"7.9c1185a5c5e9fc54"']},
}


class Validators:
    """Says which row an answer shows; the route adds `ETag` and `Last-Modified` once there are bytes."""

    def __init__(self, request: Request) -> None:
        self._scope = request.scope

    def set(self, version: int, last_modified_at: datetime) -> None:
        self._scope[_KEY] = version, last_modified_at


def validators(scope: Scope, headers: Headers, body: bytes) -> Headers:
    """What a successful answer should say beside its `headers`; nothing unless it is cacheable or shows a row."""
    row, cache_control = scope.get(_KEY), getattr(scope.get("endpoint"), "cache_control", None)
    if row is None and cache_control is None:
        return []
    own = {name for name, _ in headers}
    if b"etag" in own or b"set-cookie" in own:
        return []
    digest = blake2b(body, digest_size=8).hexdigest()
    if row is None:
        added = [(b"etag", f'"{digest}"'.encode())]
    else:
        version, at = row
        added = [(b"etag", f'"{version}.{digest}"'.encode()), (b"last-modified", http_date(at))]
    if cache_control and b"cache-control" not in own:
        added.append((b"cache-control", cache_control))
    return added


def validating(scope: Scope, send: Send) -> Send:
    """Adds `validators` to what is sent whole. The headers of a stream are not held back."""
    held: Message | None = None

    async def validating_send(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start" and is_success(message["status"]):
            if any(name == b"content-length" for name, _ in message["headers"]):
                held = message
                return
        elif held is not None:
            start, held = held, None
            if message["type"] == "http.response.body" and not message.get("more_body"):
                headers = list(start["headers"])
                start["headers"] = headers + validators(scope, headers, message.get("body", b""))
            await send(start)
        await send(message)

    return validating_send


def is_success(status: int) -> bool:
    """With a body that represents something."""
    return status in {200, 201}


def gzip_etag(etag: bytes) -> bytes:
    """Other bytes need another strong ETag (RFC 9110 §8.8.3.3)."""
    return etag if etag.startswith(b"W/") or not etag.endswith(b'"') else etag[:-1] + b'-gzip"'


def http_date(at: datetime) -> bytes:
    """RFC 9110 §5.6.7."""
    at = at.astimezone(UTC)
    day = f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04}"
    return f"{day} {at.hour:02}:{at.minute:02}:{at.second:02} GMT".encode()


class ConditionalMiddleware:
    """Answers 304 to a GET for what the client has. Stands outside of whatever compresses answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "GET":
            return self.app(scope, receive, send)
        return self.app(scope, receive, comparing(scope, send))


def comparing(scope: Scope, send: Send) -> Send:
    """Sends a 304 in place of what the client of this GET has."""
    conditions = conditions_of(scope)
    if not conditions:
        return send
    unchanged = False

    async def comparing_send(message: Message) -> None:
        nonlocal unchanged
        if unchanged:
            if message.get("more_body"):
                raise OSError("Nobody reads on")  # which ends a stream, as a client that left does
        elif message["type"] == "http.response.start" and message["status"] == 200:
            headers = message.get("headers", ())
            unchanged = is_unchanged(conditions, dict(headers))
            if unchanged:
                await send({"type": "http.response.start", "status": 304, "headers": kept_by_304(headers)})
                await send({"type": "http.response.body", "body": b""})
                return
            await send(message)
        else:
            await send(message)

    return comparing_send


def conditions_of(scope: Scope) -> Headers:
    return [header for header in scope["headers"] if header[0] in _CONDITIONS]


def kept_by_304(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return [header for header in headers if header[0] in _KEPT_BY_304]


def is_unchanged(conditions: Headers, headers: Mapping[bytes, bytes]) -> bool:
    """By its ETag if `If-None-Match` is among the conditions, else by its date (RFC 9110 §13.2.2)."""
    tags = [value for name, value in conditions if name == b"if-none-match"]
    if tags:
        etag = headers.get(b"etag", b"")
        return bool(etag) and ([etag] == tags or _is_one_of(etag, b",".join(tags)))
    if b"last-modified" not in headers:
        return False
    since, modified = _instant(conditions[-1][1]), _instant(headers[b"last-modified"])
    return since is not None and modified is not None and modified <= since


def _is_one_of(etag: bytes, tags: bytes) -> bool:
    """By weak comparison (§13.1.2); in which encoding the client has it does not matter either."""
    if tags.strip() == b"*":
        return True
    ours = _OPAQUE.search(etag)
    theirs = {tag.removesuffix(b"-gzip") for tag in _OPAQUE.findall(tags)}
    return ours is not None and ours[1].removesuffix(b"-gzip") in theirs


def _instant(date: bytes) -> datetime | None:
    try:
        at = parsedate_to_datetime(date.decode("latin-1"))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def accepted_versions(scope: Scope, required: bool) -> frozenset[int] | None:
    """The versions of a row that `If-Match` lets be changed; None where any may be.

    Raises HTTPException: 400 if it cannot be read, 428 if it is `required` and missing (RFC 6585 §3). A `W/` is passed
    over, though RFC 9110 §13.1.1 compares strongly: a proxy that compresses puts it before our tags, which says nothing
    of the version. `"7"` is accepted for `"7.<hash>"`, since lists show versions but no ETags.
    """
    values = [value for name, value in scope["headers"] if name == b"if-match"]
    if not values and required:
        raise HTTPException(428, "Say in If-Match which version you want to change: the ETag of what you have read.")
    sent = b",".join(values).strip()
    if not values or sent == b"*":
        return None
    if not _TAGS.fullmatch(sent):
        raise HTTPException(400, 'If-Match must be `*` or a list of ETags, such as "7.9c1185a5c5e9fc54".')
    versions = [int(match[1]) for tag in _OPAQUE.findall(sent) if (match := _VERSION.fullmatch(tag))]
    return frozenset(version for version in versions if version <= _LARGEST_VERSION)
