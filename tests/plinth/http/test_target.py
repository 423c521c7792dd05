"""The Host header and the path of a request, and which hosts the service answers for."""

import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.middleware.trustedhost import TrustedHostMiddleware

from plinth.http import RequestTargetMiddleware
from plinth.http.target import host_name
from tests.plinth.http.apps import answering, http_scope, messages

VALID = [
    "example.com",
    "EXAMPLE.com:8000",
    "a.example.com",
    "a.b.example.com:0",
    "192.0.2.1:80",
    "[2001:db8::1]:80",
    "x_y",
    "a" * 253,
]
INVALID = [
    "",
    " ",
    "a b",
    "user@example.com",
    "example.com/x",
    "a,b",
    "a:b",
    "a:1:2",
    "[1]x",
    "[::1",
    "[:::1]",
    "[::1%25x]",
    "é",
    "a\n",
]
INVALID += [
    "a\t",
    ":80",
    "a:65536",
    "a:999999",
    "http://a",
    "a?b",
    "a#b",
    "a\\b",
    "%61",
    "a" * 254,
    "*",
    "a;b",
    '"a"',
    "a\0",
]
ALLOWED = [
    ["*"],
    ["example.com"],
    ["*.example.com"],
    ["Example.com", "192.0.2.1"],
    ["[2001:db8::1]"],
    ["other.example", "*.b.example.com"],
]


async def status(hosts: list[str], allowed: list[str], path: str = "/things", **more: Any) -> int:
    scope = http_scope(path) | more
    scope["headers"] = [(b"accept", b"*/*"), *((b"host", host.encode("utf-8")) for host in hosts)]
    start, *_ = await messages(RequestTargetMiddleware(answering(b""), allowed), scope)
    return int(start["status"])


async def starlette_status(host: str, allowed: list[str]) -> int:
    app = TrustedHostMiddleware(answering(b""), allowed, www_redirect=False)
    start, *_ = await messages(app, http_scope("/things", host=host))
    return int(start["status"])


@pytest.mark.parametrize("allowed", ALLOWED, ids=str)
@pytest.mark.parametrize("host", VALID)
async def test_a_host_is_allowed_as_by_starlette(host: str, allowed: list[str]) -> None:
    assert await status([host], allowed) == await starlette_status(host, allowed)


@pytest.mark.parametrize("host", INVALID)
@pytest.mark.parametrize("path", ["/things", "/health/live"])
async def test_a_host_that_is_none_is_400_whatever_is_allowed(host: str, path: str) -> None:
    for allowed in ALLOWED:
        assert await status([host], allowed, path) == 400


@example(host="example.com.evil")
@example(host="evilexample.com")
@example(host="a.example.com@evil")
@given(host=st.text("aelmpx.co:[]@-/\n1", max_size=20) | st.sampled_from(VALID).map(lambda host: f"x{host}"))
async def test_no_spelling_passes_that_starlette_refuses(host: str) -> None:
    for allowed in ALLOWED[1:]:
        with suppress(UnicodeError):
            ours = await status([host], allowed)
            assert ours == 400 or host.endswith(":") or await starlette_status(host, allowed) == 200


@pytest.mark.parametrize("allowed", ALLOWED, ids=str)
async def test_more_than_one_host_is_400(allowed: list[str]) -> None:
    for hosts in (["example.com", "example.com"], ["example.com", "evil.example"], ["", "example.com"]):
        assert await status(hosts, allowed) == 400


def test_nothing_is_kept_under_a_host_whose_length_a_client_chose() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20):
        assert host_name(b"%d" % number + b"x" * 100_000) is None
    assert tracemalloc.get_traced_memory()[0] - before < 100_000
    tracemalloc.stop()


async def test_any_host_may_ask_for_health_and_nothing_else() -> None:
    for path in ("/health/live", "/health/ready"):
        assert await status(["10.1.2.3:8000"], ["example.com"], path) == 200
        assert await status([], ["example.com"], path, http_version="1.0") == 200
        assert await status(["10.1.2.3"], ["example.com"], "/shop" + path, root_path="/shop") == 200
    for path in ("/healthy", "/health", "/things/health/live", "//health/live"):
        assert await status(["10.1.2.3"], ["example.com"], path) == 400
        assert await status([], ["example.com"], path, http_version="1.0") == 400


@pytest.mark.parametrize("character", "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
async def test_a_line_break_in_a_path_is_400(character: str) -> None:
    for path in (f"/things/7{character}", f"/a{character}b", f"/{character}"):
        assert await status(["example.com"], ["*"], path) == 400


@given(path=st.text().filter(lambda path: len(f"{path}x".splitlines()) == 1))
async def test_any_other_path_is_served(path: str) -> None:
    assert await status(["example.com"], ["*"], "/" + path) == 200


async def test_a_websocket_of_another_host_is_closed() -> None:
    async def connect() -> dict[str, str]:
        return {"type": "websocket.connect"}

    scope = http_scope("/things", host="evil.example") | {"type": "websocket"}
    sent = await messages(RequestTargetMiddleware(answering(b""), ["example.com"]), scope, connect)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
