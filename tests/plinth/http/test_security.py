"""Security headers, and the redirect to HTTPS."""

from collections.abc import Mapping

import pytest
from starlette.types import Message

from plinth.http import HttpsRedirectMiddleware, SecurityHeadersMiddleware
from tests.plinth.http.apps import answering, http_scope, messages

DEFAULTS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
}


def headers(start: Message) -> dict[bytes, bytes]:
    assert len(dict(start["headers"])) == len(start["headers"])
    return dict(start["headers"])


async def test_a_response_allows_a_browser_nothing() -> None:
    start, _ = await messages(SecurityHeadersMiddleware(answering(b"")), http_scope())
    assert headers(start) == DEFAULTS


@pytest.mark.parametrize("name", DEFAULTS)
async def test_a_header_of_the_endpoint_is_kept(name: bytes) -> None:
    app = answering(b"", headers={name.decode(): "own", "x-other": "1"})
    start, _ = await messages(SecurityHeadersMiddleware(app), http_scope())
    assert headers(start) == {b"x-other": b"1"} | DEFAULTS | {name: b"own"}


@pytest.mark.parametrize(
    ("hsts", "scheme", "sent"), [(True, "https", True), (True, "http", False), (False, "https", False)]
)
async def test_hsts_is_sent_over_https_if_it_is_on(hsts: bool, scheme: str, sent: bool) -> None:
    app = SecurityHeadersMiddleware(answering(b""), hsts=hsts)
    start, _ = await messages(app, http_scope() | {"scheme": scheme})
    assert headers(start).get(b"strict-transport-security") == (b"max-age=31536000" if sent else None)


async def redirect(scope: Mapping[str, object], **request: str) -> tuple[int, str | None]:
    app = HttpsRedirectMiddleware(answering(b"served"), exempt={"/health/live"})
    start, _ = await messages(app, {**http_scope("/things", **request), **scope})
    location = headers(start).get(b"location")
    return start["status"], None if location is None else location.decode()


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("example.com", "https://example.com/things"),
        ("example.com:8080", "https://example.com/things"),
        ("example.com:", "https://example.com/things"),
        ("192.0.2.1:80", "https://192.0.2.1/things"),
        ("[2001:db8::1]:80", "https://[2001:db8::1]/things"),
    ],
)
async def test_http_is_redirected_to_the_same_host(host: str, target: str) -> None:
    assert await redirect({}, host=host) == (308, target)


@pytest.mark.parametrize(
    "host", ["", "a b", "user@example.com", "example.com/evil", "evil.com\\", "a:b", "[1]x", "x" * 254, "é", "a\n"]
)
async def test_an_invalid_host_is_400(host: str) -> None:
    assert await redirect({}, host=host) == (400, None)


async def test_a_missing_host_is_400() -> None:
    assert await redirect({}) == (400, None)


async def test_path_and_query_keep_their_encoding() -> None:
    scope = {"raw_path": b"//evil.com/a%2Fb", "path": "//evil.com/a/b", "query_string": b"q=%20&r=<>"}
    assert await redirect(scope, host="h") == (308, "https://h//evil.com/a%2Fb?q=%20&r=%3C%3E")


@pytest.mark.parametrize("scope", [{"scheme": "https"}, {"path": "/health/live"}])
async def test_https_and_probes_are_served(scope: dict[str, object]) -> None:
    assert await redirect(scope, host="example.com") == (200, None)
