import gzip
import os
import zlib
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from plinth.http.compression import GZipMiddleware, accepts_gzip
from tests.plinth.http.apps import answering, http_scope, messages, no_body

TEXT = b'{"name": "thing"}' * 100
JSON = {"Content-Type": "application/json"}


def sized(body: bytes, **headers: str) -> dict[str, str]:
    return (
        JSON | {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    )


async def answer(app: Any, *, accept: str | None = "gzip", method: str = "GET", level: int = 4) -> list[Message]:
    scope = http_scope(method=method, **({} if accept is None else {"accept_encoding": accept}))
    return await messages(GZipMiddleware(app, level=level, minimum_bytes=1000), scope)


def headers(start: Message) -> dict[str, str]:
    assert len(dict(start["headers"])) == len(start["headers"])
    return {name.decode(): value.decode() for name, value in start["headers"]}


async def is_compressed(app: Any, **request: Any) -> bool:
    start, *bodies = await answer(app, **request)
    sent = b"".join(message["body"] for message in bodies)
    compressed = headers(start).get("content-encoding") == "gzip"
    if compressed:
        gzip.decompress(sent)
    return compressed


async def test_a_large_body_is_compressed_and_says_its_length() -> None:
    start, body = await answer(answering(TEXT, headers=sized(TEXT)))
    assert headers(start) == {
        "content-type": "application/json",
        "vary": "Accept-Encoding",
        "content-encoding": "gzip",
        "content-length": str(len(body["body"])),
    }
    assert len(body["body"]) < len(TEXT)
    assert gzip.decompress(body["body"]) == TEXT


async def test_the_same_body_compresses_to_the_same_bytes() -> None:
    first, second = [await answer(answering(TEXT, headers=sized(TEXT))) for _ in range(2)]
    assert first == second


async def test_the_level_is_the_one_chosen() -> None:
    body = os.urandom(2000).hex().encode() * 5
    sizes = [len((await answer(answering(body, headers=sized(body)), level=level))[1]["body"]) for level in (1, 9)]
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize(("length", "compressed"), [(999, False), (1000, True)])
async def test_a_body_under_the_minimum_is_not_compressed_but_varies(length: int, compressed: bool) -> None:
    app = answering(TEXT[:length], headers=sized(TEXT[:length]))
    assert await is_compressed(app) is compressed
    assert headers((await answer(app))[0])["vary"] == "Accept-Encoding"


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
async def test_only_what_compresses_well_is_compressed(content_type: str, compressed: bool) -> None:
    app = answering(TEXT, headers=sized(TEXT) | {"Content-Type": content_type})
    assert await is_compressed(app) is compressed
    assert ("vary" in headers((await answer(app))[0])) is compressed


async def test_an_answer_without_headers_passes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    assert await answer(app) == [{"type": "http.response.start", "status": 200}]


@pytest.mark.parametrize("status", [204, 206, 304])
async def test_no_body_and_a_part_of_one_pass_untouched(status: int) -> None:
    app = answering(TEXT, status=status, headers=sized(TEXT))
    assert await answer(app) == await messages(app, http_scope())


async def test_what_is_encoded_already_passes_untouched() -> None:
    app = answering(TEXT, headers=sized(TEXT, Content_Encoding="br"))
    assert await answer(app) == await messages(app, http_scope())


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        ("Origin", [b"Origin", b"Accept-Encoding"]),
        ("accept-encoding", [b"accept-encoding"]),
        ("Origin, Accept-Encoding", [b"Origin, Accept-Encoding"]),
    ],
)
async def test_vary_is_added_to_and_never_said_twice(vary: str, expected: list[bytes]) -> None:
    start, _ = await answer(answering(TEXT, headers=sized(TEXT, Vary=vary)))
    assert [value for name, value in start["headers"] if name == b"vary"] == expected


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
async def test_accept_encoding_is_honoured(accept: str | None, accepted: bool) -> None:
    assert await is_compressed(answering(TEXT, headers=sized(TEXT)), accept=accept) is accepted


async def test_accept_encoding_may_come_in_several_lines() -> None:
    scope = http_scope() | {"headers": [(b"accept-encoding", b"br"), (b"accept-encoding", b"gzip")]}
    start, _ = await messages(GZipMiddleware(answering(TEXT, headers=sized(TEXT)), 4, 0), scope)
    assert headers(start)["content-encoding"] == "gzip"


@given(st.binary())
def test_any_accept_encoding_is_survived(value: bytes) -> None:
    accepts_gzip(value)


weights = st.decimals(0, 1, places=3)


@given(st.dictionaries(st.sampled_from(["gzip", "br", "identity", "*"]), weights))
def test_gzip_is_used_only_if_it_is_allowed_and_identity_not_preferred(members: dict[str, Any]) -> None:
    value = ", ".join(f"{coding};q={weight}" for coding, weight in members.items()).encode()
    weight = members.get("gzip", members.get("*", 0))
    assert accepts_gzip(value) == (weight > 0 and weight >= members.get("identity", 0))


async def test_a_stream_reaches_the_client_chunk_by_chunk() -> None:
    chunks = [b"first " * 10, b"", b"second", b"third"]
    start, *bodies = await answer(answering(*chunks, b"", headers=JSON))
    assert headers(start) == JSON_STREAM
    unzip = zlib.decompressobj(31)
    assert [unzip.decompress(message["body"]) for message in bodies] == [*chunks, b""]
    assert unzip.eof
    assert [message["more_body"] for message in bodies] == [True, True, True, True, False]


JSON_STREAM = {"content-type": "application/json", "vary": "Accept-Encoding", "content-encoding": "gzip"}


async def test_the_headers_of_a_stream_wait_for_no_chunk() -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        assert [message["type"] for message in sent] == ["http.response.start"]

    async def send(message: Message) -> None:
        sent.append(message)

    await GZipMiddleware(app, 4, 0)(http_scope(accept_encoding="gzip"), no_body, send)
    assert len(sent) == 1


async def test_a_stream_of_known_length_is_compressed_and_loses_its_length() -> None:
    start, *bodies = await answer(answering(TEXT, TEXT, headers=sized(TEXT + TEXT)))
    assert headers(start) == JSON_STREAM
    assert gzip.decompress(b"".join(message["body"] for message in bodies)) == TEXT + TEXT


async def test_an_event_stream_passes_untouched() -> None:
    app = answering(b"data: 1\n\n", b"data: 2\n\n", b"", headers={"Content-Type": "text/event-stream"})
    assert await answer(app) == await messages(app, http_scope())


async def test_a_very_large_body_is_compressed_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Any] = []
    run_sync = anyio.to_thread.run_sync

    async def noting(*call: Any) -> Any:
        threads.append(call[0])
        return await run_sync(*call)

    monkeypatch.setattr("plinth.http.compression.to_thread.run_sync", noting)
    for size in (256 * 1024, 256 * 1024 + 1):
        body = b"x" * size
        assert await is_compressed(answering(body, headers=sized(body)))
    assert threads == [zlib.compress]


async def test_headers_that_were_held_are_sent_if_no_body_follows() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        raise ZeroDivisionError

    raw = [(b"content-type", b"application/json"), (b"content-length", b"5000")]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        await GZipMiddleware(app, 4, 0)(http_scope(accept_encoding="gzip"), no_body, send)
    assert sent == [{"type": "http.response.start", "status": 200, "headers": [*raw, (b"vary", b"Accept-Encoding")]}]


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
async def test_a_body_that_the_server_reads_from_a_file_itself_is_not_compressed(content_type: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raw = [(b"content-type", content_type.encode()), (b"content-length", b"5000")]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.pathsend", "path": "file.json"})

    start, file = await answer(app)
    assert "content-encoding" not in headers(start)
    assert file["type"] == "http.response.pathsend"


async def test_what_is_not_http_passes() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(send)

    send: Any = object()
    await GZipMiddleware(app, 4, 0)({"type": "websocket"}, no_body, send)
    assert seen == [send]
