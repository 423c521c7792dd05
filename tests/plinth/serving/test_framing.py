"""Where requests begin and end (RFC 9112): generated streams of requests, in generated segments, over one connection.

The reference is the list of requests from which a stream was made: each is answered once, in order, with its own body.
"""

import asyncio
from itertools import pairwise, product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from plinth.serving.heads import Head
from tests.plinth.serving.wire import wire

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
HOSTS = [("1.1", 0, 400), ("1.1", 1, 200), ("1.1", 2, 400), ("1.0", 0, 200), ("1.0", 1, 200), ("1.0", 2, 400)]
FRAMINGS = ["none", "length", "chunked"]
UPGRADES = [
    b"",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    b"upgrade: TLS/1.2, HTTP/2.0\r\nconnection: keep-alive, upgrade\r\n",
    b"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: upgrade\r\nConnection: keep-alive\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: Upgrade\r\n",
]


class Request(NamedTuple):
    data: bytes
    echoed: bytes


def request(number: int, method: bytes, framing: str, upgrade: bytes, body: bytes) -> Request:
    if framing == "none":
        fields, data, body = b"", b"", b""
    elif framing == "length":
        fields, data = b"Content-Length: %d\r\n" % len(body), body
    else:
        chunks = [body[:3], body[3:]] if len(body) > 3 else [body] if body else []
        fields = b"Transfer-Encoding: chunked\r\n"
        data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = b"%s /%d HTTP/1.1\r\nHost: test\r\n%s%s\r\n" % (method, number, upgrade, fields)
    return Request(head + data, b"%s /%d %s" % (method, number, body))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]


async def check(requests: list[Request], segments: list[bytes]) -> None:
    async with wire() as connection:
        connection.feed(segments)
        received = [(answer.status, answer.body) for answer in await connection.answers()]
    assert received == [*((200, request.echoed) for request in requests), (200, b"GET /last ")]


requests = st.lists(
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"]),
        st.sampled_from(FRAMINGS),
        st.sampled_from(UPGRADES),
        st.sampled_from([b"", b"x", HIDDEN, b"0\r\n\r\n" + HIDDEN, b"\r\n" * 40]),
    ),
    min_size=1,
    max_size=5,
).map(lambda parts: [request(number, *part) for number, part in enumerate(parts)])
cuts: st.SearchStrategy[list[int]] = st.one_of(st.just([]), st.lists(st.integers(0, 1500), max_size=12))


@given(requests=requests, cuts=cuts)
async def test_each_request_is_answered_once_with_its_own_body(requests: list[Request], cuts: list[int]) -> None:
    data = b"".join(request.data for request in requests) + LAST
    await check(requests, split(data, [cut for cut in cuts if cut < len(data)]))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_a_body_is_one_wherever_its_segments_end(framing: str, upgrade: bytes) -> None:
    """Each stream is cut in two at every byte, and once at all of them."""
    for body, follower in product([HIDDEN[:20] + b"\r\n\r\n"], UPGRADES[:2]):
        first, second = request(1, b"POST", framing, upgrade, body), request(2, b"GET", "none", follower, b"")
        data = first.data + second.data + LAST
        await check([first, second], [data[at : at + 1] for at in range(len(data))])
        async with wire() as connection:
            for cut in range(1, len(first.data) + len(second.data)):
                connection.feed([data[:cut], data[cut : -len(LAST)]])
                answers = [await connection.answer(), await connection.answer()]
                assert [answer and answer.body for answer in answers] == [first.echoed, second.echoed]


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n", 501),
        (b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\nContent-Length: 36\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 36\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 36\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 36\r\nContent-Length: 36\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3, 36\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +36\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length : 36\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\nHost: t\nContent-Length: 36\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: t\r\n\r\n", 400),
        (b"GET / HTTP/0.9\r\nHost: t\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: t\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
@pytest.mark.parametrize("upgrade", [False, True])
async def test_what_cannot_be_framed_is_refused_and_nothing_after_it_is_parsed(
    wrong: bytes, status: int, upgrade: bool
) -> None:
    if upgrade:
        wrong = wrong.replace(b"\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n", 1)
    before = request(1, b"POST", "length", b"", b"body")
    for segments in ([wrong + HIDDEN], [wrong, HIDDEN], split(wrong + HIDDEN, [*range(len(wrong))])):
        for first in ([], [before]):
            async with wire() as connection:
                connection.feed([*(each.data for each in first), *segments])
                *answered, refused = await connection.answers()
            assert [answer.body for answer in answered] == [each.echoed for each in first]
            assert (refused.status, refused.headers["connection"]) == (status, "close")
            assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "chunks", [b"x\r\n", b"3\r\nabcd\r\n", b"3 \r\nabc", b"-1\r\n", b"3\nabc", b"ffffffffffffffffff\r\n"]
)
@pytest.mark.parametrize("before", [0, 1, 3])
async def test_a_body_that_breaks_off_is_refused_after_the_responses_before_it(chunks: bytes, before: int) -> None:
    earlier = [request(number, b"GET", "none", b"", b"") for number in range(before)]
    head = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with wire() as connection:
        connection.feed([*(each.data for each in earlier), head, chunks + HIDDEN])
        *answered, refused = await connection.answers()
    assert [answer.body for answer in answered] == [each.echoed for each in earlier]
    assert refused.status == 400


async def test_a_request_after_connection_close_is_not_answered() -> None:
    async with wire() as connection:
        connection.feed([LAST + HIDDEN])
        assert [answer.body for answer in await connection.answers()] == [b"GET /last "]


async def test_the_end_of_a_client_that_was_refused_ends_the_connection() -> None:
    async with wire() as connection:
        connection.writer.write(b"nonsense\r\n\r\n")
        assert len(await connection.answers()) == 1
        connection.writer.write(b"x" * 100_000)
        connection.writer.write_eof()
        while not connection.protocol.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize(("version", "hosts", "status"), HOSTS)
@pytest.mark.parametrize("upgrade", UPGRADES[:3])
@pytest.mark.parametrize("path", ["/", "/health/live"])
async def test_a_request_has_one_host_header(version: str, hosts: int, status: int, upgrade: bytes, path: str) -> None:
    head = f"GET {path} HTTP/{version}\r\n".encode() + b"Host: test\r\n" * hosts
    async with wire() as connection:
        connection.feed([head + upgrade + b"Connection: close\r\n\r\n"])
        assert [answer.status for answer in await connection.answers()] == [status]


@pytest.mark.parametrize("ending", [b"1.1\r\nConnection: close", b"1.0", b"1.0\r\nConnection: close"])
@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize(
    ("framing", "body"), [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"0\r\n\r\n")]
)
async def test_a_body_after_an_upgrade_and_an_end_is_read_or_refused(
    ending: bytes, upgrade: bytes, framing: bytes, body: bytes
) -> None:
    """httptools takes nothing that follows the head of such a request for its body."""
    head = b"POST / HTTP/" + ending + b"\r\nHost: test\r\n" + upgrade + framing + b"\r\n\r\n"
    for segments in ([head + body + HIDDEN], [head, body, HIDDEN]):
        async with wire() as connection:
            connection.feed(segments)
            answer = await connection.answer()
            assert answer is not None
            if answer.status != 200:
                assert (answer.status, await connection.answers()) == (400, [])
                assert upgrade
            else:
                assert answer.body == b"POST / " + body.removesuffix(b"0\r\n\r\n")


async def test_a_request_of_http_0_9_is_refused_at_its_line_break() -> None:
    for segments in ([b"GET /\r\n"], [b"GET", b" /\r", b"\n"]):
        async with wire() as connection:
            connection.feed(segments)
            assert [answer.status for answer in await connection.answers()] == [400]


async def test_the_response_to_a_refused_request_is_not_lost_while_the_client_is_sending() -> None:
    async with wire() as connection:
        connection.feed([b"nonsense\r\n\r\n"])
        assert not connection.protocol.transport.is_closing()
        assert [answer.status for answer in await connection.answers()] == [400]


async def echo_header(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the header once the whole request was received, of which the trailer is the end."""
    while (await receive()).get("more_body"):
        pass
    content = b"".join(b"%s: %s\n" % field for field in scope["headers"])
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": content})


@pytest.mark.parametrize("step", [1, 7, 100, 1000])
async def test_a_trailer_is_no_part_of_the_header(step: int) -> None:
    """RFC 9110 §6.5.1: a client could add what a proxy removes from the header, such as X-Forwarded-For."""
    head = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailer = b"X-Forwarded-For: 1.2.3.4\r\nHost: other\r\nAuthorization: Bearer x\r\nContent-Type: text/html\r\n"
    data = head + b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n" + LAST
    async with wire(echo_header) as connection:
        connection.feed(split(data, [*range(step, len(data), step)]))
        bodies = [answer.body for answer in await connection.answers()]
    assert bodies == [b"host: test\ntransfer-encoding: chunked\n", b"host: test\nconnection: close\n"]


CHUNKED = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("step", [1000, 65_536, 10_000_000])
@pytest.mark.parametrize(
    ("start", "filler", "end"),
    [
        (b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", b"\r\n", b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nX: ", b"x", b"\r\n\r\n"),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", b"X: y\r\n", b"\r\n"),
        (CHUNKED + b"3;", b"x", b"\r\nabc\r\n0\r\n\r\n"),
        (CHUNKED + b"3\r\nabc\r\n0;", b"x", b"\r\n\r\n"),
        (CHUNKED, b"0" * 16, b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("size", [10_000, 500_000])
async def test_what_is_neither_header_nor_body_is_bounded(
    start: bytes, filler: bytes, end: bytes, step: int, size: int
) -> None:
    data = start + filler * (size // len(filler)) + end + LAST
    async with wire() as connection:
        connection.feed(split(data, [*range(step, len(data), step)]))
        answers = await connection.answers()
    is_served = size == 10_000
    assert (answers[-1].status, answers[-1].headers["connection"]) == (200 if is_served else 400, "close")
    assert (answers[-1].body == b"GET /last ") == is_served


@pytest.mark.parametrize("size", [0, 1, 500_000])
async def test_framing_that_is_spread_over_a_body_is_not_counted_together(size: int) -> None:
    """Tiny chunks, and requests in two pieces on one connection, have as much of it, but never much in succession."""
    body, chunks = b"x" * size, b"1\r\nx\r\n" * size
    async with wire() as connection:
        for number in range(2000 if not size else 2):
            connection.feed(
                [b"POST /%d HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nX: " % number, b"y" * 50]
            )
            connection.feed([b"\r\n\r\n", *split(chunks + b"0\r\n\r\n", [*range(9999, len(chunks), 9999)])])
            answer = await connection.answer()
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"POST /%d " % number + body)


@pytest.mark.parametrize("codings", [b"gzip, chunked", b"identity,chunked", b"identity\r\nTransfer-Encoding: chunked"])
async def test_a_coding_that_is_not_supported_is_refused(codings: bytes) -> None:
    async with wire() as connection:
        connection.feed(
            [b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: " + codings + b"\r\n\r\n0\r\n\r\n" + HIDDEN]
        )
        assert [answer.status for answer in await connection.answers()] == [501]


@pytest.mark.parametrize("scheme", [b"http", b"HTTPS"])
@pytest.mark.parametrize("authority", [b"test", b"test:80", b"[::1]:80"])
@pytest.mark.parametrize("rest", [b"", b"/", b"?a=b", b"/x?a=b", b"/x", b"#x"])
async def test_a_target_in_absolute_form_may_lack_a_path(scheme: bytes, authority: bytes, rest: bytes) -> None:
    """RFC 9110 §4.2.3: an empty path is `/`."""
    async with wire() as connection:
        for number in range(2):
            close = b"Connection: close\r\n" * number
            connection.feed(
                [b"GET %s://%s%s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (scheme, authority, rest, authority, close)]
            )
        answers = await connection.answers()
    path = b"/x" if rest.startswith(b"/x") else b"/"
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"GET %s " % path)] * 2 or (
        rest == b"#x" and [answer.status for answer in answers] == [400]
    )


@pytest.mark.parametrize(("version", "is_continued"), [(b"1.1", True), (b"1.0", False)])
async def test_an_expectation_of_http_1_0_is_ignored(version: bytes, is_continued: bool) -> None:
    """RFC 9110 §10.1.1: such a client takes the 100 for the response."""
    async with wire() as connection:
        connection.feed([b"POST / HTTP/%s\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n" % version])
        if is_continued:
            assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.feed([b"ab"])
        answer = await connection.answer()
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"POST / ab")


WEBSOCKET = [(b"host", b"t"), (b"connection", b"Upgrade"), (b"upgrade", b"WebSocket")]


@pytest.mark.parametrize(
    ("method", "fields", "upgrades"),
    [
        (b"GET", WEBSOCKET, True),
        (b"POST", WEBSOCKET, False),
        (b"GET", [*WEBSOCKET, (b"content-length", b"4")], False),
        (b"GET", [*WEBSOCKET, (b"transfer-encoding", b"chunked")], False),
        (b"GET", [*WEBSOCKET, (b"connection", b"close")], False),
        (b"GET", [*WEBSOCKET, (b"upgrade", b"h2c")], False),
        (b"GET", [*WEBSOCKET[:2], (b"upgrade", b"h2c, websocket")], False),
    ],
)
def test_only_a_get_without_a_body_becomes_a_websocket(
    method: bytes, fields: list[tuple[bytes, bytes]], upgrades: bool
) -> None:
    assert Head(method, b"/", fields).upgrades_to_websocket == upgrades
