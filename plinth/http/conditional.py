"""Conditional requests (RFC 9110 §13): 304 for a GET of an unchanged representation, `If-Match` against lost updates.

`If-None-Match` compares the whole ETag (see `plinth.http.responses`), `If-Match` only the version in it.
"""

import re
from collections.abc import Awaitable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
# RFC 9110 §15.4.5. The other headers describe a body, which a 304 does not have.
_KEPT_BY_304 = frozenset(
    {b"age", b"cache-control", b"content-location", b"date", b"etag", b"expires", b"set-cookie", b"vary"}
)
_OPAQUE_TAG = re.compile(rb'"([^"]*)"')
_TAG = r'(W/)?"[!#-~]*"'
# Unambiguous, so that matching takes linear time on any input.
_TAGS = re.compile(rf"[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG})*[ \t,]*".replace("#-~", "#-~\x80-\xff").encode("latin-1"))
_VERSION = re.compile(rb"([0-9]{1,10})(\..*)?")
_LARGEST_VERSION = 2**31 - 1

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "Make the change only if the resource still has one of these ETags. `*` matches any version.",
    "schema": {"type": "string", "pattern": rf"^(\*|{_TAG}(, ?{_TAG})*)$", "examples": ['"7.9c1185a5c5e9fc54"']},
}
"""The OpenAPI parameter of operations that document a 412."""


class ConditionalMiddleware:
    """Answers 304 to a GET if the client already has the response, by its ETag or else by its date.

    Add it outside of `GZipMiddleware`: each encoding has an ETag of its own, and a 304 must carry the right one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "GET":
            return self.app(scope, receive, send)
        return self.app(scope, receive, comparing(scope, send))


def comparing(scope: Scope, send: Send) -> Send:
    """Wrap `send` so that it replaces a 200 by a 304 if the conditions of the request say so."""
    conditions = conditions_of(scope)
    if not conditions:
        return send
    unchanged = False

    async def comparing_send(message: Message) -> None:
        nonlocal unchanged
        if unchanged:
            if message.get("more_body"):
                # Ends the stream, as a client that disconnects does.
                raise OSError("The response was replaced by a 304")
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
    """Return the request's `If-None-Match` and `If-Modified-Since` headers."""
    return [header for header in scope["headers"] if header[0] in _CONDITIONS]


def kept_by_304(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return those headers of a 200 that a 304 repeats."""
    return [header for header in headers if header[0] in _KEPT_BY_304]


def is_unchanged(conditions: Headers, headers: Mapping[bytes, bytes]) -> bool:
    """Evaluate conditions against response headers. `If-None-Match` takes precedence (RFC 9110 §13.2.2)."""
    tags = [value for name, value in conditions if name == b"if-none-match"]
    if tags:
        etag = headers.get(b"etag", b"")
        return bool(etag) and ([etag] == tags or _is_one_of(etag, b",".join(tags)))
    if b"last-modified" not in headers:
        return False
    since, modified = _parse_date(conditions[-1][1]), _parse_date(headers[b"last-modified"])
    return since is not None and modified is not None and modified <= since


def gzip_etag(etag: bytes) -> bytes:
    """Return the ETag of the gzip encoding: other bytes need another strong ETag (RFC 9110 §8.8.3.3)."""
    return etag if etag.startswith(b"W/") or not etag.endswith(b'"') else etag[:-1] + b'-gzip"'


def accepted_versions(scope: Scope, required: bool) -> frozenset[int] | None:
    """Return the row versions that `If-Match` allows to be changed; None if it allows any.

    Raises HTTPException: 400 for a malformed header, 428 if the header is `required` and missing (RFC 6585 §3).
    `W/` is ignored, although RFC 9110 §13.1.1 demands strong comparison: a compressing proxy adds it to our ETags, and
    the version in them stays right. `"7"` is accepted as `"7.<hash>"`, since lists show versions but no ETags.
    """
    values = [value for name, value in scope["headers"] if name == b"if-match"]
    if not values and required:
        raise HTTPException(428, "This request must be conditional. Send the ETag of the version you read in If-Match.")
    tags = b",".join(values).strip()
    if not values or tags == b"*":
        return None
    if not _TAGS.fullmatch(tags):
        raise HTTPException(400, 'If-Match must be `*` or a list of ETags, such as "7.9c1185a5c5e9fc54".')
    versions = [int(match[1]) for tag in _OPAQUE_TAG.findall(tags) if (match := _VERSION.fullmatch(tag))]
    return frozenset(version for version in versions if version <= _LARGEST_VERSION)


def _is_one_of(etag: bytes, tags: bytes) -> bool:
    """Compare weakly (RFC 9110 §13.1.2), and regardless of the encoding that the client has."""
    if tags.strip() == b"*":
        return True
    opaque = _OPAQUE_TAG.search(etag)
    sent = {tag.removesuffix(b"-gzip") for tag in _OPAQUE_TAG.findall(tags)}
    return opaque is not None and opaque[1].removesuffix(b"-gzip") in sent


def _parse_date(date: bytes) -> datetime | None:
    try:
        at = parsedate_to_datetime(date.decode("latin-1"))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
