"""Preconditions (RFC 9110 §13): their syntax, and what they decide in the order of §13.2.2.

Those of GET and HEAD are evaluated against the response, by `plinth.http.comparing`. Those of a change are evaluated
against the row that it locks, by `check_version`: only the version in an ETag (`plinth.http.responses`) is compared.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.types import Scope

Headers = list[tuple[bytes, bytes]]

_CONDITIONS = frozenset({b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since"})
# RFC 9110 §15.4.5. The other headers describe a body, which a 304 does not have.
_KEPT_BY_304 = frozenset(
    {b"age", b"cache-control", b"content-location", b"date", b"etag", b"expires", b"set-cookie", b"vary"}
)
_OPAQUE_TAG = re.compile(rb'"([^"]*)"')
_WHOLE_TAG = re.compile(rb'(W/)?"[^"]*"')
_TAG = r'(W/)?"[!#-~]*"'
# Unambiguous, so that matching takes linear time on any input.
_TAGS = re.compile(rf"[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG})*[ \t,]*".replace("#-~", "#-~\x80-\xff").encode("latin-1"))
_VERSION = re.compile(rb"([0-9]{1,10})(\..*)?")
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_TIME = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_MONTH = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
# The three forms of an HTTP-date (RFC 9110 §5.6.7), which has no other zone than GMT.
_DATES = [
    re.compile(rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + rb" GMT"),
    re.compile(
        rb"(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + rb" GMT"
    ),
    re.compile(rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) " + _MONTH + rb" (?P<day>\d\d| \d) " + _TIME + rb" (?P<year>\d{4})"),
]

PRECONDITION_FAILED = "The resource is not in the state that the request expects. Fetch it again and retry."

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "Make the change only if the resource still has one of these ETags. `*` matches any version.",
    "schema": {"type": "string", "pattern": rf"^(\*|{_TAG}(, ?{_TAG})*)$", "examples": ['"7.9c1185a5c5e9fc54"']},
}
"""The OpenAPI parameter of operations that document a 412."""


def conditions_of(scope: Scope) -> Headers:
    """Return the headers of the request that are preconditions."""
    return [header for header in scope["headers"] if header[0] in _CONDITIONS]


def kept_by_304(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return those headers of a 200 that a 304 repeats."""
    return [header for header in headers if header[0] in _KEPT_BY_304]


def evaluate(conditions: Headers, headers: Mapping[bytes, bytes]) -> int:
    """Evaluate the preconditions of a GET or HEAD against the headers of its 200 or 206.

    Returns 200 if the response is to be sent, 304 if the client has it, and 412 if it is not what the client expects.
    """
    etag = headers.get(b"etag", b"")
    matches, none_match = _values(conditions, b"if-match"), _values(conditions, b"if-none-match")
    if matches:
        tags = b",".join(matches).strip()
        # Strong comparison: the bytes have to be the same.
        if tags != b"*" and etag not in _strong_tags(tags):
            return 412
    elif _is_newer(headers, _date(conditions, b"if-unmodified-since")):
        return 412
    if none_match:
        return 304 if (etag and [etag] == none_match) or _is_one_of(etag, b",".join(none_match)) else 200
    return 304 if _is_newer(headers, _date(conditions, b"if-modified-since")) is False else 200


def _is_newer(headers: Mapping[bytes, bytes], date: datetime | None) -> bool | None:
    """Whether a response was modified after a date; None where either is missing."""
    modified = parse_date(headers.get(b"last-modified", b"")) if date else None
    return modified > date if date and modified else None


def gzip_etag(etag: bytes) -> bytes:
    """Return the ETag of the gzip encoding: other bytes need another strong ETag (RFC 9110 §8.8.3.3)."""
    return etag if etag.startswith(b"W/") or not etag.endswith(b'"') else etag[:-1] + b'-gzip"'


def accepted_versions(scope: Scope, required: bool) -> Callable[[int | None, datetime | None], bool] | None:
    """Return whether the preconditions of a change accept a row, as a function of its version and its time.

    The version is None where there is no row: `If-Match` refuses that, and `If-None-Match` accepts it.

    None if there is no precondition. Raises HTTPException: 400 for a malformed header, 428 if `If-Match` is `required`
    and missing (RFC 6585 §3); `If-None-Match` is as good, which a client sends that is about to create something.
    `W/` is ignored, although RFC 9110 §13.1.1 demands strong comparison: a compressing proxy adds it to our ETags, and
    the version in them stays right. `"7"` is accepted as `"7.<hash>"`, since lists show versions but no ETags.
    """
    conditions = conditions_of(scope)
    if required and not (_values(conditions, b"if-match") or _values(conditions, b"if-none-match")):
        raise HTTPException(428, "This request must be conditional. Send the ETag of the version you read in If-Match.")
    match, none_match = _versions(conditions, "If-Match"), _versions(conditions, "If-None-Match")
    since = None if match else _date(conditions, b"if-unmodified-since")
    if not match and not none_match and since is None:
        return None

    def accepts(version: int | None, modified_at: datetime | None) -> bool:
        if version is None:
            return match is None
        if match and not match(version):
            return False
        # The date in Last-Modified has no fraction.
        if since is not None and modified_at is not None and modified_at.replace(microsecond=0) > since:
            return False
        return not (none_match and none_match(version))

    return accepts


def parse_date(date: bytes) -> datetime | None:
    """Return the instant of an HTTP-date; None for anything else, which a recipient has to ignore."""
    found = next((match for form in _DATES if (match := form.fullmatch(date.strip(b" \t")))), None)
    if found is None:
        return None
    year, day, hour, minute, second = (int(found[name]) for name in ("year", "day", "hour", "minute", "second"))
    now = datetime.now(UTC)
    if len(found["year"]) == 2:  # more than 50 years in the future is the past (RFC 9110 §5.6.7)
        year += now.year // 100 * 100
        year -= 100 if year > now.year + 50 else 0
    if second > 60:
        return None
    try:
        at = datetime(year, _MONTHS.index(found["month"]) + 1, day, hour, minute, tzinfo=UTC)
        return at + timedelta(seconds=second)
    except (ValueError, OverflowError):
        return None


def _values(conditions: Headers, name: bytes) -> list[bytes]:
    return [value for header, value in conditions if header == name]


def _date(conditions: Headers, name: bytes) -> datetime | None:
    """Return the date of a condition. One that is sent twice is a list, and no date."""
    values = _values(conditions, name)
    return parse_date(values[0]) if len(values) == 1 else None


def _versions(conditions: Headers, name: str) -> Callable[[int], bool] | None:
    """Return whether one of the tags has a version. `*` has any. None without the header."""
    values = _values(conditions, name.lower().encode())
    if not values:
        return None
    tags = b",".join(values).strip()
    if tags == b"*":
        return lambda _: True
    if not _TAGS.fullmatch(tags):
        raise HTTPException(400, f'{name} must be `*` or a list of ETags, such as "7.9c1185a5c5e9fc54".')
    versions = {int(match[1]) for tag in _OPAQUE_TAG.findall(tags) if (match := _VERSION.fullmatch(tag))}
    return frozenset(versions).__contains__


def _strong_tags(tags: bytes) -> set[bytes]:
    return {tag[0] for tag in _WHOLE_TAG.finditer(tags) if not tag[0].startswith(b"W/")}


def _is_one_of(etag: bytes, tags: bytes) -> bool:
    """Compare weakly (RFC 9110 §13.1.2), and regardless of the encoding that the client has."""
    if tags.strip() == b"*":
        return True
    opaque = _OPAQUE_TAG.search(etag)
    sent = {tag.removesuffix(b"-gzip") for tag in _OPAQUE_TAG.findall(tags)}
    return opaque is not None and opaque[1].removesuffix(b"-gzip") in sent
