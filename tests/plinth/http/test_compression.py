"""Compression: which responses, for which clients, with which headers; streams chunk by chunk; off the event loop."""

import gzip
import os
import threading
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from plinth.http import GZipMiddleware
from plinth.http.compression import accepts_gzip, compressible
from tests.plinth.http.apps import answering, http_scope, messages, no_body

TEXT = b'{"name": "thing"}' * 100
JSON = {"Content-Type": "application/json"}
JSON_STREAM = {"content-type": "application/json", "vary": "Accept-Encoding", "content-encoding": "gzip"}


def sized(body: bytes, **headers: str) -> dict[str, str]:
    return (
        JSON | {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    )


async def respond(app: Any, *, accept: str | None = "gzip", level: int = 4, minimum_size: int = 1000) -> list[Message]:
    scope = http_scope(**({} if accept is None else {"accept_encoding": accept}))
    return await messages(GZipMiddleware(app, minimum_size=minimum_size, compresslevel=level), scope)


def headers(start: Message) -> dict[str, str]:
    assert len(dict(start["headers"])) == len(start["headers"])
    return {name.decode(): value.decode() for name, value in start["headers"]}


async def is_compressed(app: Any, **request: Any) -> bool:
    start, *bodies = await respond(app, **request)
    body = b"".join(message["body"] for message in bodies)
    compressed = headers(start).get("content-encoding") == "gzip"
    if compressed:
        gzip.decompress(body)
    return compressed


async def test_a_large_body_is_compressed() -> None:
    start, body = await respond(answering(TEXT, headers=sized(TEXT)))
    assert headers(start) == JSON_STREAM | {"content-length": str(len(body["body"]))}
    assert len(body["body"]) < len(TEXT)
    assert gzip.decompress(body["body"]) == TEXT


async def test_the_same_body_compresses_to_the_same_bytes() -> None:
    first, second = [await respond(answering(TEXT, headers=sized(TEXT))) for _ in range(2)]
    assert first == second


async def test_a_response_that_is_sent_twice_is_not_changed() -> None:
    app = answering(TEXT, headers=sized(TEXT, ETag='"a"'))
    before = await messages(app, http_scope())
    first, second = await respond(app), await respond(app)
    assert first == second
    assert await messages(app, http_scope()) == before


async def test_the_level_is_respected() -> None:
    body = os.urandom(2000).hex().encode() * 5
    sizes = [len((await respond(answering(body, headers=sized(body)), level=level))[1]["body"]) for level in (1, 9)]
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize(("length", "compressed"), [(999, False), (1000, True)])
async def test_a_small_body_is_not_compressed_but_varies(length: int, compressed: bool) -> None:
    app = answering(TEXT[:length], headers=sized(TEXT[:length]))
    assert await is_compressed(app) is compressed
    assert headers((await respond(app))[0])["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("etag", "compressed"), [('"7.a"', '"7.a-gzip"'), ('W/"7.a"', 'W/"7.a"'), ("malformed", "malformed")]
)
async def test_each_encoding_has_a_strong_etag_of_its_own(etag: str, compressed: str) -> None:
    app = answering(TEXT, headers=sized(TEXT, ETag=etag))
    assert headers((await respond(app))[0])["etag"] == compressed
    assert headers((await respond(app, accept=None))[0])["etag"] == etag
    assert headers((await respond(answering(b"", headers=sized(b"", ETag=etag))))[0])["etag"] == etag
    stream = answering(TEXT, TEXT, headers=JSON | {"ETag": etag})
    assert headers((await respond(stream))[0])["etag"] == compressed


@pytest.mark.parametrize(
    ("content_type", "compressed"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/problem+json", True),
        ("application/jsonl", True),
        ("application/atom+xml", True),
        ("application/xml", True),
        ("text/html; charset=utf-8", True),
        ("text/javascript", True),
        ("image/svg+xml", True),
        ("text/event-stream", False),
        ("text/event-stream; charset=utf-8", False),
        ("image/png", False),
        ("application/octet-stream", False),
        ("application/zip", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("accept", ["gzip", None])
async def test_only_compressible_content_is_compressed_and_varies(
    content_type: str, compressed: bool, accept: str | None
) -> None:
    app = answering(TEXT, headers=sized(TEXT) | {"Content-Type": content_type})
    assert await is_compressed(app, accept=accept) is (compressed and accept == "gzip")
    assert ("vary" in headers((await respond(app, accept=accept))[0])) is compressed


async def test_a_response_without_headers_passes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    for accept in ("gzip", None):
        start, body = await respond(app, accept=accept, minimum_size=0)
        assert (start["status"], start.get("headers", [])) == (200, [])
        assert body == {"type": "http.response.body"}


@pytest.mark.parametrize("status", [204, 206, 304])
@pytest.mark.parametrize("accept", ["gzip", None])
async def test_partial_responses_and_those_without_a_body_pass_unchanged(status: int, accept: str | None) -> None:
    for body in (TEXT, b""):
        app = answering(body, status=status, headers=sized(body, ETag='"a"'))
        assert await respond(app, accept=accept, minimum_size=0) == await messages(app, http_scope())


async def test_an_encoded_response_passes_unchanged() -> None:
    for encoding in ("br", "gzip"):
        app = answering(TEXT, headers=sized(TEXT, Content_Encoding=encoding, ETag='"a"'))
        assert await respond(app) == await messages(app, http_scope())


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        ("Origin", [b"Origin", b"Accept-Encoding"]),
        ("accept-encoding", [b"accept-encoding"]),
        ("Origin, Accept-Encoding", [b"Origin, Accept-Encoding"]),
    ],
)
async def test_vary_is_extended_and_not_repeated(vary: str, expected: list[bytes]) -> None:
    for accept in ("gzip", None):
        start, _ = await respond(answering(b"{}", headers=sized(b"{}", Vary=vary)), accept=accept)
        assert [value for name, value in start["headers"] if name == b"vary"] == expected


async def test_a_compressed_response_keeps_its_own_vary() -> None:
    start, _ = await respond(answering(TEXT, headers=sized(TEXT, Vary="Origin")))
    assert headers(start)["vary"] == "Origin, Accept-Encoding"


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("br, gzip", True),
        ("gzip;q=0.001", True),
        ("gzip ; q=1.000", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*", True),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("identity;q=0, gzip;q=0.1", True),
        ("gzip;q=0.5, identity;q=0.6", False),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("gzip;q=0.5, br;q=1", True),
        ("br", False),
        ("gzipped", False),
        ("gzip;q=2", False),
        ("gzip;q=-1", False),
        ("gzip;q=nan", False),
        ("gzip;q=1e0", False),
        ("gzip;", False),
        ("gzip;level=9", False),
    ],
)
async def test_accept_encoding_is_respected(accept: str | None, accepted: bool) -> None:
    assert await is_compressed(answering(TEXT, headers=sized(TEXT)), accept=accept) is accepted


async def test_accept_encoding_may_be_several_headers() -> None:
    scope = http_scope() | {"headers": [(b"accept-encoding", b"br"), (b"accept-encoding", b"gzip")]}
    start, _ = await messages(GZipMiddleware(answering(TEXT, headers=sized(TEXT)), minimum_size=0), scope)
    assert headers(start)["content-encoding"] == "gzip"


@given(st.binary())
def test_any_accept_encoding_can_be_parsed(value: bytes) -> None:
    accepts_gzip(value)


weights = st.decimals(0, 1, places=3)


@given(st.dictionaries(st.sampled_from(["gzip", "br", "identity", "*"]), weights))
def test_gzip_is_used_if_it_is_allowed_and_identity_is_not_preferred(members: dict[str, Any]) -> None:
    value = ", ".join(f"{coding};q={weight}" for coding, weight in members.items()).encode()
    weight = members.get("gzip", members.get("*", 0))
    assert accepts_gzip(value) == (weight > 0 and weight >= members.get("identity", 0))


async def test_a_stream_is_compressed_chunk_by_chunk() -> None:
    chunks = [b"first " * 10, b"", b"second", b"third"]
    start, *bodies = await respond(answering(*chunks, b"", headers=JSON))
    assert headers(start) == JSON_STREAM
    unzip = zlib.decompressobj(31)
    assert [unzip.decompress(message["body"]) for message in bodies] == [*chunks, b""]
    assert unzip.eof
    assert [message["more_body"] for message in bodies] == [True, True, True, True, False]


async def test_a_stream_of_known_length_loses_its_content_length() -> None:
    start, *bodies = await respond(answering(TEXT, TEXT, headers=sized(TEXT + TEXT)))
    assert headers(start) == JSON_STREAM
    assert gzip.decompress(b"".join(message["body"] for message in bodies)) == TEXT + TEXT


async def test_a_stream_that_turns_out_small_is_not_compressed_but_varies() -> None:
    start, body = await respond(answering(b"{}", headers=JSON | {"ETag": '"a"'}))
    assert headers(start) == {"content-type": "application/json", "etag": '"a"', "vary": "Accept-Encoding"}
    assert body["body"] == b"{}"


async def test_an_event_stream_passes_unchanged_and_at_once() -> None:
    app = answering(b"data: 1\n\n", b"data: 2\n\n", b"", headers={"Content-Type": "text/event-stream"})
    assert await respond(app) == await messages(app, http_scope())

    sent: list[Message] = []

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        raw = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        assert len(sent) == 1

    async def send(message: Message) -> None:
        sent.append(message)

    await GZipMiddleware(silent)(http_scope(accept_encoding="gzip"), no_body, send)
    assert len(sent) == 1


async def test_a_very_large_body_is_compressed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    class Recording:
        def __init__(self, *args: Any) -> None:
            self.compressor = zlib.compressobj(*args)

        def compress(self, body: bytes) -> bytes:
            threads.append(threading.current_thread() is not threading.main_thread())
            return self.compressor.compress(body)

        def flush(self) -> bytes:
            return self.compressor.flush()

    class Zlib:
        DEFLATED, MAX_WBITS, compressobj = zlib.DEFLATED, zlib.MAX_WBITS, Recording

    monkeypatch.setattr("starlette.middleware.gzip.zlib", Zlib)
    for size in (128 * 1024 - 1, 128 * 1024):
        body = b"x" * size
        assert await is_compressed(answering(body, headers=sized(body)))
    assert threads == [False, True]


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
async def test_a_file_that_the_server_reads_is_not_compressed(content_type: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raw = [(b"content-type", content_type.encode()), (b"content-length", b"5000")]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.pathsend", "path": "file.json"})

    start, file = await respond(app)
    assert "content-encoding" not in headers(start)
    assert file["type"] == "http.response.pathsend"


async def test_websockets_pass() -> None:
    received: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(send)

    send: Any = object()
    await GZipMiddleware(app)({"type": "websocket"}, no_body, send)
    assert received == [send]


def test_nothing_is_kept_under_headers_whose_length_a_client_chose() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20):
        assert accepts_gzip(b"gzip, %d" % number + b"x" * 100_000)
        assert not compressible(b"image/%d" % number + b"x" * 100_000)
    assert tracemalloc.get_traced_memory()[0] - before < 100_000
    tracemalloc.stop()
