"""What a client can make the server hold: the size of a request's head, the requests in a pipeline, and their time."""

import asyncio
from collections.abc import Callable
from itertools import product

import orjson
import pytest
from starlette.types import Receive, Scope, Send

from plinth.http.problems import problem
from plinth.serving import ServerSettings
from plinth.serving.heads import MAX_HEADER_BYTES, MAX_REQUEST_LINE
from plinth.serving.protocol import MAX_PIPELINED, Protocol
from plinth.serving.refusals import Refusal
from tests.plinth.serving.wire import Wire, echo, wire

HOST = b"Host: test\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
SETTINGS = ServerSettings(
    header_timeout_seconds=10, body_timeout_seconds=15, send_timeout_seconds=60, keep_alive_seconds=75
)
SEGMENTS = [1, 97, 4096, 40_000, 262_144]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def header(fields: int, size: int) -> bytes:
    """A header block of so many fields and bytes, `Host` included, not counting the empty line."""
    names = [HOST, *(b"X-%d: \r\n" % number for number in range(fields - 1))]
    missing = size - sum(map(len, names))
    longest = names.pop()
    return b"".join([*names, longest[:-2], b"v" * missing, b"\r\n"])


async def status(data: bytes, size: int) -> int:
    """The status of the response to a request that arrives in segments of this size, with others around it."""
    async with wire() as connection:
        connection.feed([GET])
        assert await connection.answer()
        connection.feed(cut(data + LAST, size))
        answers = await connection.answers()
        assert len(answers) == (2 if answers[0].status == 200 else 1)
        return answers[0].status


@pytest.mark.parametrize("size", SEGMENTS)
@pytest.mark.parametrize(
    ("fields", "bytes_", "expected"),
    [
        *(
            (fields, MAX_HEADER_BYTES + more, 431 if more > 0 else 200)
            for fields in (2, 50, 100)
            for more in (-1, 0, 1)
        ),
        *((fields, 4000, 431 if fields > 100 else 200) for fields in (99, 100, 101, 300)),
        (2, 200_000, 431),
        (9000, 150_000, 431),
    ],
)
async def test_a_header_block_is_bounded(fields: int, bytes_: int, expected: int, size: int) -> None:
    if size == 1 and bytes_ > 40_000:
        size = 11
    assert await status(b"GET / HTTP/1.1\r\n" + header(fields, bytes_) + b"\r\n", size) == expected


@pytest.mark.parametrize("size", SEGMENTS)
@pytest.mark.parametrize("length", [MAX_REQUEST_LINE - 1, MAX_REQUEST_LINE, MAX_REQUEST_LINE + 1, 100_000])
@pytest.mark.parametrize("block", [100, MAX_HEADER_BYTES])
async def test_a_request_line_is_bounded(length: int, size: int, block: int) -> None:
    line = b"GET /".ljust(length - len(b" HTTP/1.1"), b"x") + b" HTTP/1.1\r\n"
    expected = 414 if length > MAX_REQUEST_LINE else 200
    assert await status(line + header(2, block) + b"\r\n", max(size, 11)) == expected


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX"])
@pytest.mark.parametrize("filler", [b"x", b"a: b\r\n", b" "])
async def test_a_head_without_an_end_is_refused_early(start: bytes, filler: bytes) -> None:
    """However large it gets: what is held of it is bounded."""
    async with wire() as connection:
        connection.feed(cut(start + filler * (100_000 // len(filler)), 1000))
        [refused] = await connection.answers()
        assert refused.status in {400, 414, 431}
        before = connection.protocol.bytes_received
        connection.feed([filler * 10_000])
        assert connection.protocol.bytes_received == before + len(filler) * 10_000
        assert len(connection.protocol.url) + len(connection.protocol.headers) < 100_000


async def test_large_bodies_pass_in_any_segments() -> None:
    for body, size in product([b"\r\n\r\n" * 30_000, b"x" * 300_000, GET * 2000], [1000, 65_536, 262_144]):
        head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with wire() as connection:
            connection.feed(cut(head + body + LAST, size))
            first, last = await connection.answers()
            assert (first.body, last.body) == (b"POST / " + body, b"GET /last ")


class Gate:
    """An app that answers no request before it is opened, and in the meantime waits for a disconnect if it should."""

    def __init__(self, listens: bool) -> None:
        self.listens = listens
        self.opened = asyncio.Event()
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        await receive()
        listening = asyncio.ensure_future(receive()) if self.listens else None
        await self.opened.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        if listening:
            await listening


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("request_", [GET, b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n\r\n\r\n"])
async def test_a_pipeline_is_bounded_and_everything_in_it_is_answered(listens: bool, request_: bytes) -> None:
    request_ = request_.replace(b"Host", b"X: %s\r\nHost" % (b"x" * 200))
    gate, count = Gate(listens), 600_000 // len(request_)
    async with wire(gate) as connection:
        protocol, queued = connection.protocol, 0
        connection.writer.write(request_ * count + LAST)
        for _ in range(200):
            await asyncio.sleep(0)
            queued = max(queued, len(protocol.pipeline))
        assert gate.requests == 1
        assert protocol.bytes_received < len(request_) * count // 2
        gate.opened.set()
        answered = 0
        while (answer := await connection.answer()) is not None:
            answered += answer.status == 200
            queued = max(queued, len(protocol.pipeline))
        assert answered == count + 1
        assert queued <= MAX_PIPELINED + 1


async def test_requests_of_one_segment_each_are_bounded_too() -> None:
    gate = Gate(listens=True)
    async with wire(gate) as connection:
        for _ in range(500):
            connection.feed([GET])
            await asyncio.sleep(0)
        assert len(connection.protocol.pipeline) <= MAX_PIPELINED + 1
        gate.opened.set()
        connection.feed([LAST])
        assert len(await connection.answers()) == 501


@pytest.mark.parametrize("request_", [GET, b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n\r\n\r\n"])
@pytest.mark.parametrize("count", [MAX_PIPELINED, MAX_PIPELINED + 2, 100, 700])
async def test_many_requests_in_one_small_segment_are_bounded_too(request_: bytes, count: int) -> None:
    gate = Gate(listens=False)
    async with wire(gate) as connection:
        connection.feed([request_ * count])
        assert len(connection.protocol.pipeline) <= MAX_PIPELINED
        gate.opened.set()
        connection.feed([LAST])
        assert len(await connection.answers()) == count + 1


# The time a client has. `now` is given, so that nothing waits.


async def checked(connection: Wire, *seconds: float, between: Callable[[], object] = lambda: None) -> bool:
    """Check the pace at these times. Returns whether the connection is still served."""
    for now in seconds:
        connection.protocol.check_pace(now, SETTINGS)
        between()
        await asyncio.sleep(0)
    return not connection.protocol.transport.is_closing() and connection.protocol.reading


@pytest.mark.parametrize("sent", [b"GET /", b"GET / HTTP/1.1\r\nHost: te", GET + b"GET /"])
async def test_a_slow_header_is_refused_even_if_it_trickles(sent: bytes) -> None:
    async with wire() as connection:
        connection.feed([sent])
        if sent.startswith(GET):
            assert await connection.answer()
        assert await checked(connection, 100, 101, 109.9, between=lambda: connection.feed([b"x"]))
        assert not await checked(connection, 110)
        assert [answer.status for answer in await connection.answers()] == [408]


async def test_the_time_of_a_header_begins_with_its_own_request() -> None:
    async with wire() as connection:
        connection.feed([GET[:5]])
        assert await checked(connection, 100)
        connection.feed([GET[5:] + GET[:5]])
        assert await connection.answer()
        assert await checked(connection, 109, 118.9)
        assert not await checked(connection, 119)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("per_second", [0, 1, 200, 300, 10_000])
async def test_a_body_must_make_progress(framing: bytes, per_second: int) -> None:
    async with wire() as connection:
        connection.feed([b"POST / HTTP/1.1\r\nHost: test\r\n%s\r\n\r\n" % framing])
        chunk = b"x" * per_second
        if per_second and framing.startswith(b"Transfer"):
            chunk = b"%x\r\n%s\r\n" % (per_second, chunk)
        served = await checked(connection, *range(100, 160), between=lambda: connection.feed([chunk]))
        assert served == (per_second > 240)
        if not served:
            assert [answer.status for answer in await connection.answers()] == [408]


async def test_a_body_is_not_slow_while_the_app_does_not_read_it() -> None:
    """Neither before `100 Continue`, nor with more in memory than the app has taken, nor behind other requests."""
    for before, fields, body in (
        (b"", b"Expect: 100-continue\r\n", b""),
        (b"", b"", b"x" * 100_000),
        (GET, b"", b""),
    ):
        gate = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send, gate: asyncio.Event = gate) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        async with wire(app) as connection:
            head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n%s\r\n" % fields
            connection.feed([before + head + body])
            await checked(connection, 100, 200, 300)
            assert not connection.protocol.transport.is_closing()
            gate.set()
            if fields:
                assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            if before:
                assert await connection.answer()
            connection.feed([b"x" * (200_000 - len(body))])
            answer = await connection.answer()
            assert answer
            assert len(answer.body) > 200_000


async def test_a_body_that_stops_after_its_response_ends_the_connection_without_another_one() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with wire(app) as connection:
        connection.feed([b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n"])
        assert await connection.answer()
        assert not await checked(connection, 100, 116)
        assert await connection.answers() == []


@pytest.mark.parametrize("sent", [b"", b"\r\n", GET, GET + b"\r\n\r\n"])
async def test_an_idle_connection_ends_after_the_keep_alive_time(sent: bytes) -> None:
    async with wire() as connection:
        if sent:
            connection.feed([sent])
        if sent.startswith(GET):
            assert await connection.answer()
        assert await checked(connection, 100, 174.9)
        assert not await checked(connection, 175)
        assert await connection.answers() == []


async def test_a_request_in_progress_has_as_much_time_as_it_needs() -> None:
    gate = Gate(listens=False)
    async with wire(gate) as connection:
        connection.feed([GET + b"GET / HT"])
        assert await checked(connection, 100, 1000, 10_000)
        gate.opened.set()
        assert await connection.answer(bodiless=True)


MEGABYTE = b"x" * 1_000_000


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(100):
        await send({"type": "http.response.body", "body": MEGABYTE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    length = (b"content-length", b"100000000")
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": MEGABYTE * 100})


async def until_full(protocol: Protocol) -> int:
    """Wait until the client's socket takes no more. Returns what is left to send."""
    before = -1
    while not before == (size := protocol.transport.get_write_buffer_size()) > 0:
        before = size
        await asyncio.sleep(0.01)
    return size


@pytest.mark.parametrize("app", [stream, large])
@pytest.mark.parametrize("last", [False, True])
async def test_a_client_that_does_not_read_is_disconnected(app: Callable[..., object], last: bool) -> None:
    async with wire(app) as connection:
        connection.feed([LAST if last else GET])
        await until_full(connection.protocol)
        await checked(connection, 100, 159.9)
        assert connection.protocol in connection.protocol.connections
        await checked(connection, 160)
        while connection.protocol.connections:  # noqa: ASYNC110
            await asyncio.sleep(0)
        while connection.protocol.tasks:  # noqa: ASYNC110 - the app ends as for any client that disconnects
            await asyncio.sleep(0)


async def test_a_client_that_does_not_read_the_end_of_a_response_is_disconnected() -> None:
    """Of which so little is left that Uvicorn's flow control does not wait for it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not connection.protocol.transport.get_write_buffer_size():
            await send({"type": "http.response.body", "body": MEGABYTE[:10_000], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with wire(app) as connection, asyncio.timeout(10):
        connection.feed([GET])
        await until_full(connection.protocol)
        assert not connection.protocol.responding
        await checked(connection, 100, 159.9)
        assert connection.protocol in connection.protocol.connections
        await checked(connection, 160)
        while connection.protocol.connections:  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("app", [stream, large])
async def test_a_client_that_reads_slowly_is_served(app: Callable[..., object]) -> None:
    """Sockets hold megabytes, so the server only sees progress where the client has read as many."""
    async with wire(app) as connection:
        connection.feed([GET])
        await until_full(connection.protocol)
        for now in range(100, 400, 30):
            assert await checked(connection, now)
            await connection.reader.readexactly(7_000_000)
            await until_full(connection.protocol)


@pytest.mark.parametrize("status_", [400, 408, 414, 431, 501])
def test_a_refusal_is_a_problem_as_of_the_app(status_: int) -> None:
    refusal = Refusal(status_, "A sentence.")
    head, _, body = refusal.response([(b"date", b"now")]).partition(b"\r\n\r\n")
    expected = {**orjson.loads(problem(status_, "A sentence.").body), "request_id": refusal.request_id}
    assert orjson.loads(body) == expected
    assert head.startswith(b"HTTP/1.1 %d " % status_)
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
