"""Conditional requests: by ETag, else by date; 304 for streams; the versions in If-Match."""

import re
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from plinth.http import ConditionalMiddleware, accepted_versions
from plinth.http.conditional import IF_MATCH, evaluate
from tests.plinth.http.apps import answering, http_scope, messages

DATE = "Sat, 21 Nov 2026 08:05:06 GMT"
RESPONSE = {b"etag": b'"7.a-gzip"', b"last-modified": DATE.encode()}
NONE_MATCH, SINCE = b"if-none-match", b"if-modified-since"


@pytest.mark.parametrize(
    ("name", "value", "unchanged"),
    [
        *((NONE_MATCH, tag, True) for tag in ('"7.a-gzip"', '"7.a"', 'W/"7.a"', '"x,", "7.a"', '"x",,W/"7.a" ', "*")),
        *((NONE_MATCH, tag, False) for tag in ('"7.b"', '"7"', "7.a", '"x", *', "", '"8.a"', '"7.a')),
        (SINCE, DATE, True),
        (SINCE, "Saturday, 21-Nov-26 08:05:06 GMT", True),
        (SINCE, "Sat Nov 21 08:05:07 2026", True),
        (SINCE, "Sat, 21 Nov 2026 08:05:05 GMT", False),
        *((SINCE, invalid, False) for invalid in ("yesterday", "", "Sat, 99 Nov 2026 08:05:06 GMT", "\xff")),
    ],
)
def test_conditions_are_evaluated_against_the_response(name: bytes, value: str, unchanged: bool) -> None:
    condition = [(name, value.encode("latin-1"))]
    assert evaluate(condition, RESPONSE) == (304 if unchanged else 200)
    assert evaluate(condition, {}) == (304 if value == "*" else 200)  # there is a representation, without an ETag
    if name == NONE_MATCH:
        both = [*condition, (SINCE, DATE.encode())]
        assert evaluate(both, RESPONSE) == (304 if unchanged else 200)  # the ETag takes precedence


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", {*range(11)}),
        ('"7.9c1185a5c5e9fc54"', {7}),
        ('"7.9c1185a5c5e9fc54-gzip", W/"8.x" ,, "9"', {7, 8, 9}),
        ('"other", "99999999999.a", "-1", "1a"', set()),
        ('"a,b", "1.\xff"', {1}),
        *((invalid, 400) for invalid in ("", ",", "7", '"7', '"7" "8"', '"7", *', 'w/"7"', '"7";', ", " * 4000 + "x")),
    ],
)
def test_if_match_is_parsed_to_versions(header: str | None, versions: Any) -> None:
    scope = http_scope()
    if header is not None:
        scope["headers"] = [(b"if-match", header.encode("latin-1"))]
        documented = re.search(IF_MATCH["schema"]["pattern"], header) is not None  # type: ignore[index]
        assert not documented or versions != 400
    if versions == 400:
        with pytest.raises(HTTPException, match=r"^400: If-Match must be"):
            accepted_versions(scope, required=False)
    else:
        accepts = accepted_versions(scope, required=False)
        found = {version for version in range(11) if accepts(version, None)} if callable(accepts) else accepts
        assert found == versions
    if header is None:
        with pytest.raises(HTTPException, match="428"):
            accepted_versions(scope, required=True)


async def test_a_304_keeps_the_headers_that_a_cache_needs_and_no_others() -> None:
    kept = {"cache-control": "no-cache", "date": "now", "etag": '"a"', "set-cookie": "a=b", "vary": "Origin"}
    app = ConditionalMiddleware(answering(b"body", headers={**kept, "content-length": "4", "content-type": "a/b"}))
    start, body = await messages(app, http_scope(if_none_match='"a"'))
    assert start["status"] == 304
    assert {name.decode(): value.decode() for name, value in start["headers"]} == kept
    assert body == {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize(("method", "status"), [("POST", 200), ("PUT", 200), ("GET", 404), ("GET", 500)])
async def test_only_a_success_of_a_get_becomes_a_304(method: str, status: int) -> None:
    app = answering(b"body", status=status, headers={"etag": '"a"'})
    scope = http_scope(method=method, if_none_match='"a"')
    assert await messages(ConditionalMiddleware(app), scope) == await messages(app, scope)


async def test_an_unchanged_stream_is_ended() -> None:
    produced = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal produced
        await send({"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"a"')]})
        for produced in range(100):  # noqa: B007
            await send({"type": "http.response.body", "body": b"row", "more_body": True})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await ConditionalMiddleware(app)(http_scope(if_none_match='"a"'), None, send)  # type: ignore[arg-type]
    assert (sent[0]["status"], sent[1:], produced) == (304, [{"type": "http.response.body", "body": b""}], 0)
