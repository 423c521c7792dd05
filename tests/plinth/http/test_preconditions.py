"""Preconditions: every combination, compared with the steps of RFC 9110 §13.2.2 as they are written there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.database import check_version
from plinth.errors import ChangedError
from plinth.http import ConditionalMiddleware, accepted_versions
from plinth.http.conditional import parse_date
from tests.plinth.http.apps import answering, http_scope, messages

AT = datetime(2026, 11, 1, 8, 5, 6, tzinfo=UTC)
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
LONG_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

# Spellings with what they mean: the tags as (weak, opaque), "*" for any; None for a header that is not sent.
Tags = list[tuple[bool, str]] | str | None
TAGS: list[tuple[str | None, Tags]] = [
    (None, None),
    ("*", "*"),
    ('"7.a"', [(False, "7.a")]),
    ('W/"7.a"', [(True, "7.a")]),
    ('"x,y" ,, "7.a"', [(False, "x,y"), (False, "7.a")]),
    ('"6.b"', [(False, "6.b")]),
    ('"6.b", W/"8.c"', [(False, "6.b"), (True, "8.c")]),
]


def imf(at: datetime) -> str:
    return f"{DAYS[at.weekday()]}, {at:%d} {MONTHS[at.month - 1]} {at.year:04} {at:%H:%M:%S} GMT"


def rfc850(at: datetime) -> str:
    return f"{LONG_DAYS[at.weekday()]}, {at:%d}-{MONTHS[at.month - 1]}-{at.year % 100:02} {at:%H:%M:%S} GMT"


def asctime(at: datetime) -> str:
    return f"{DAYS[at.weekday()]} {MONTHS[at.month - 1]} {at.day:2} {at:%H:%M:%S} {at.year:04}"


NO_DATES = [
    "yesterday",
    "",
    "Sun, 01 Nov 2026 08:05:06 +0000",
    "Sun, 01 Nov 2026 08:05:06 +99999999999999",
    "Sun, 01 Nov 2026 08:05:06 -9999",
    "Sun, 41 Nov 2026 08:05:06 GMT",
    "Sun, 01 Nov 0000 08:05:06 GMT",
    "Fri, 31 Dec 9999 23:59:60 GMT",
    "Sun, 01 Nov 2026 08:05 GMT",
    "sun, 01 nov 2026 08:05:06 gmt",
    f"{imf(AT)}, {imf(AT)}",
    "2026-11-01T08:05:06Z",
    # A part that is out of range, in each form.
    *(
        date(AT).replace("08:05:06", time)
        for date in (imf, rfc850, asctime)
        for time in ("24:05:06", "08:60:06", "08:05:61")
    ),
    *(date(AT).replace("01", day) for date in (imf, rfc850) for day in ("00", "31")),
    asctime(AT).replace(" 1 ", "31 "),
    "9" * 5000,
    "\xff\xb2",
]
DATES: list[tuple[str | None, datetime | None]] = [
    (None, None),
    (imf(AT), AT),
    (rfc850(AT + timedelta(seconds=1)), AT + timedelta(seconds=1)),
    (asctime(AT - timedelta(seconds=1)), AT - timedelta(seconds=1)),
    (NO_DATES[3], None),
]


@dataclass
class Request:
    match: tuple[str | None, Tags]
    unmodified: tuple[str | None, datetime | None]
    none_match: tuple[str | None, Tags]
    modified: tuple[str | None, datetime | None]

    def headers(self) -> list[tuple[bytes, bytes]]:
        sent = {
            "if-modified-since": self.modified[0],
            "if-none-match": self.none_match[0],
            "if-unmodified-since": self.unmodified[0],
            "if-match": self.match[0],
        }
        return [(name.encode(), value.encode("latin-1")) for name, value in sent.items() if value is not None]


REQUESTS = [Request(*each) for each in product(TAGS, DATES, TAGS, DATES)]


def reference(method: str, request: Request, etag: tuple[bool, str] | None, modified: datetime | None) -> int:
    """RFC 9110 §13.2.2, for a resource that has a representation. Returns 200, 304 or 412."""
    reads = method in {"GET", "HEAD"}
    # Step 1. "If-Match is present, evaluate the If-Match precondition": strong comparison (§13.1.1).
    if request.match[1] is not None:
        strong = isinstance(request.match[1], str) or (
            etag is not None and not etag[0] and any(not weak and tag == etag[1] for weak, tag in request.match[1])
        )
        if not strong:
            return 412
    # Step 2. "If-Match is not present, and If-Unmodified-Since is present": ignored unless it is an HTTP-date.
    elif request.unmodified[1] is not None and modified is not None and modified > request.unmodified[1]:
        return 412
    # Step 3. "If-None-Match is present": weak comparison (§13.1.2).
    if request.none_match[1] is not None:
        if isinstance(request.none_match[1], str) or (
            etag is not None and any(tag == etag[1] for _, tag in request.none_match[1])
        ):
            return 304 if reads else 412
    # Step 4. "the method is GET or HEAD, If-None-Match is not present, and If-Modified-Since is present".
    elif reads and request.modified[1] is not None and modified is not None and modified <= request.modified[1]:
        return 304
    return 200


def representations() -> Iterator[tuple[tuple[bool, str] | None, datetime | None]]:
    yield from product([(False, "7.a"), (True, "7.a"), None], [AT, None])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize(("etag", "modified"), [*representations()])
async def test_reads(method: str, status: int, etag: Any, modified: Any) -> None:
    headers = {}
    if etag is not None:
        headers["ETag"] = f'{"W/" if etag[0] else ""}"{etag[1]}"'
    if modified is not None:
        headers["Last-Modified"] = imf(modified)
    app = ConditionalMiddleware(answering(b"body", status=status, headers=headers))
    wrong = []
    for request in REQUESTS:
        scope = {**http_scope(method=method), "headers": request.headers()}
        found = (await messages(app, scope))[0]["status"]
        expected = reference(method, request, etag, modified)
        if found != (status if expected == 200 else expected):
            wrong.append((request, found, expected))
    assert wrong[:3] == []


@dataclass
class Row:
    version: int
    updated_at: datetime
    id: int = 1


def test_changes() -> None:
    """The version in a tag is compared, and `W/` is ignored, as `accepted_versions` says."""
    row = Row(7, AT + timedelta(microseconds=999_999))
    wrong = []
    for request in REQUESTS:
        versions = accepted_versions({**http_scope(method="PUT"), "headers": request.headers()}, required=False)
        found = 200
        try:
            check_version(row, versions)
        except ChangedError:
            found = 412
        strong = [(False, tag) for _, tag in request.match[1]] if isinstance(request.match[1], list) else None
        as_strong = replace(request, match=(None, strong or request.match[1]))
        if found != reference("PUT", as_strong, (False, "7.a"), AT):
            wrong.append((request, found))
    assert wrong[:3] == []


@pytest.mark.parametrize("text", NO_DATES)
@pytest.mark.parametrize("name", ["if-modified-since", "if-unmodified-since"])
async def test_what_is_no_http_date_is_ignored(name: str, text: str) -> None:
    app = ConditionalMiddleware(answering(b"body", headers={"Last-Modified": imf(AT)}))
    scope = {**http_scope(), "headers": [(name.encode(), text.encode("latin-1"))]}
    assert (await messages(app, scope))[0]["status"] == 200
    assert accepted_versions(scope, required=False) is None


async def test_a_date_that_is_sent_twice_is_a_list_and_ignored() -> None:
    app = ConditionalMiddleware(answering(b"body", headers={"Last-Modified": imf(AT)}))
    scope = {**http_scope(), "headers": [(b"if-modified-since", imf(AT).encode())] * 2}
    assert (await messages(app, scope))[0]["status"] == 200


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_form_of_a_date_is_read(at: datetime) -> None:
    at = at.replace(microsecond=0)
    assert parse_date(imf(at).encode()) == parse_date(asctime(at).encode()) == at
    short = parse_date(rfc850(at).encode())
    if short is not None:  # 29 February of a year that is not the one meant
        assert (short.year % 100, short.month, short.day) == (at.year % 100, at.month, at.day)
        assert -50 <= short.year - datetime.now(UTC).year <= 50 or short.year < datetime.now(UTC).year


@given(st.binary(max_size=60))
def test_any_bytes_are_a_date_or_none(text: bytes) -> None:
    found = parse_date(text)
    assert found is None or found.tzinfo is UTC


def test_if_match_is_a_412_with_a_problem() -> None:
    versions = accepted_versions(http_scope(method="PUT", if_none_match="*"), required=False)
    with pytest.raises(ChangedError, match="Row 1 was modified"):
        check_version(Row(7, AT), versions)
