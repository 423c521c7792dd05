"""Ranges of a file: generated headers, compared with the steps of RFC 9110 §14.1.2 as they are written there."""

import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message

from plinth.errors import UnavailableError
from plinth.http import ConditionalMiddleware, HeadMiddleware, RangeResponse
from plinth.http.ranges import parse_range
from tests.plinth.http.apps import http_scope, messages

CONTENT = b"0123456789"
ETAG = '"7.abc"'
AT = datetime(2026, 11, 1, 8, 5, 6, 700000, tzinfo=UTC)


def number(digits: str) -> int:
    """Python converts no more than 4,300 digits; none of these positions is in a file of the tests."""
    return int(digits) if len(digits.lstrip("0")) < 40 and len(digits) < 4000 else int(digits.lstrip("0")[:40] or 0)


def reference(header: str, size: int) -> list[int] | None:
    """The positions that a client gets; None for the whole. Counted one by one."""
    spec = re.fullmatch(r"(?i:bytes)=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", header)
    if spec is None:
        return None
    first, last, suffix = spec.groups()
    if suffix is not None:
        positions = [at for at in range(size) if size - at <= number(suffix)]
        return None if size == 0 and number(suffix) > 0 else positions
    if last and number(first) > number(last):
        return None
    return [at for at in range(size) if at >= number(first) and (not last or at <= number(last))]


NUMBERS = st.one_of(st.integers(0, 12).map(str), st.sampled_from(["", "007", "0" * 5000 + "3", "9" * 30]))
HEADERS = st.one_of(
    st.builds(
        "{}{}{}-{}".format,
        st.sampled_from(["bytes=", "Bytes=", "bytes= ", "bits=", "", "bytes"]),
        st.sampled_from(["", "-", "+", "0-1,"]),
        NUMBERS,
        NUMBERS,
    ),
    st.text("bytes=-0123456789, \t", max_size=15),
)


@given(header=HEADERS, size=st.integers(0, 12))
@example(header="bytes=-0", size=5)
@example(header="bytes=-", size=5)
@example(header="bytes=-3", size=0)
@example(header="bytes=0-", size=0)
@example(header="bytes=5-", size=5)
@example(header="bytes=9999999999999999999-99999999999999999999", size=5)
@example(header="bytes=0-1,3-4", size=5)
@example(header="bytes=٣-٥", size=5)
def test_a_range_is_that_of_the_rfc(header: str, size: int) -> None:
    expected, found = reference(header, size), parse_range(header.encode(), size)
    assert (found and [*range(*found)]) == expected
    assert found is None or (0 <= found[0] <= size and found[1] <= size)


def test_more_digits_than_python_reads_are_read() -> None:
    assert parse_range(b"bytes=2-" + b"9" * 100_000, 10) == (2, 10)
    assert parse_range(b"bytes=" + b"9" * 100_000 + b"-", 10) == (10, 10)
    assert parse_range(b"bytes=-" + b"9" * 100_000, 10) == (0, 10)


class File:
    """Ten bytes, that are read three at a time."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.reads, self.closed = fails_at, list[tuple[int, int]](), 0

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        self.reads.append((start, end))
        try:
            for at in range(start, end, 3):
                if self.fails_at is not None and at >= self.fails_at:
                    raise UnavailableError("The store is away.")
                yield CONTENT[at : min(at + 3, end)]
        finally:
            self.closed += 1

    async def answer(self, method: str = "GET", **headers: str) -> list[Message]:
        response = RangeResponse(self.read, size=10, media_type="image/png", etag=ETAG, modified_at=AT)
        app = HeadMiddleware(ConditionalMiddleware(response))
        return await messages(app, http_scope(method=method, **headers))


def seen(sent: list[Message]) -> tuple[int, dict[str, str], bytes]:
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:])


async def test_the_whole_and_a_part() -> None:
    file = File()
    status, headers, body = seen(await file.answer())
    assert (status, body, headers["content-length"], headers["accept-ranges"]) == (200, CONTENT, "10", "bytes")
    assert (headers["etag"], headers["last-modified"]) == (ETAG, "Sun, 01 Nov 2026 08:05:06 GMT")
    status, headers, body = seen(await file.answer(range="bytes=2-8"))
    assert (status, body, headers["content-length"]) == (206, b"2345678", "7")
    assert headers["content-range"] == "bytes 2-8/10"
    assert (file.reads, file.closed) == ([(0, 10), (2, 9)], 2)


async def test_no_byte_of_it_is_416_and_nothing_is_read() -> None:
    file = File()
    status, headers, body = seen(await file.answer(range="bytes=10-"))
    assert (status, headers["content-range"], headers["content-type"]) == (
        416,
        "bytes */10",
        "application/problem+json",
    )
    assert b"10 bytes" in body
    assert file.reads == []


@pytest.mark.parametrize("condition", ['"other"', f"W/{ETAG}", "Sun, 01 Nov 2026 08:05:06 GMT", f"{ETAG}, {ETAG}"])
async def test_if_range_takes_the_strong_etag_only(condition: str) -> None:
    assert seen(await File().answer(range="bytes=2-8", if_range=condition))[0] == 200
    assert seen(await File().answer(range="bytes=2-8", if_range=ETAG))[0] == 206


@pytest.mark.parametrize("range", ["bytes=2-8", "bytes=10-", "bytes=0-1,3-4"])
async def test_a_precondition_goes_before_the_range(range: str) -> None:
    assert seen(await File().answer(range=range, if_none_match=ETAG))[0] == 304
    assert seen(await File().answer(range=range, if_modified_since="Sun, 01 Nov 2026 08:05:06 GMT"))[0] == 304
    assert seen(await File().answer(range=range, if_match='"other"'))[0] == 412


async def test_head_has_no_range_and_closes_the_file() -> None:
    file = File()
    status, headers, body = seen(await file.answer("HEAD", range="bytes=2-8"))
    assert (status, headers["content-length"], body) == (200, "10", b"")
    assert file.closed == 1


async def test_what_fails_before_the_first_byte_is_an_error_and_not_a_short_file() -> None:
    with pytest.raises(UnavailableError):
        await File(fails_at=0).answer()
    broken = File(fails_at=3)
    with pytest.raises(UnavailableError):
        await broken.answer()
    assert broken.closed == 1
