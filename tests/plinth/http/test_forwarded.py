"""Who a request is from and where it was sent, behind proxies: compared with a reference that is slow and plain."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from fastapi import APIRouter, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from plinth.http import ForwardedMiddleware, Links, add_docs
from tests.plinth.http.apps import answering, build, client, http_scope, messages, recorded

PEER = "10.0.0.9"
ADDRESSES = [
    "10.0.0.1",
    "10.0.0.2:8080",
    "192.0.2.7",
    "203.0.113.5",
    "2001:db8::7",
    "[2001:db8::8]:443",
    "::ffff:10.1.1.1",
]
GARBAGE = [
    "unknown",
    "_hidden",
    "",
    "evil\n",
    "1.2.3",
    "1.2.3.4.5",
    "[::1",
    "a:b",
    "fe80::1%x y",
    "::1]",
    "x" * 300,
    "٣.1.1.1",
]
TRUSTED = [
    "",
    "0",
    "1",
    "2",
    "3",
    "*",
    "10.0.0.0/8",
    "10.0.0.9",
    "10.0.0.0/8, 192.0.2.0/24",
    "2001:db8::/32,10.0.0.0/8",
]


async def seen(
    trusted: str, fields: list[tuple[str, str]], root_path: str = "", peer: str | None = PEER, **more: Any
) -> Scope:
    """The scope that the app receives."""
    received: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(scope)
        await answering(b"")(scope, receive, send)

    scope = http_scope("/things") | {"raw_path": b"/things", "client": (peer, 5) if peer else None} | more
    scope["headers"] = [(name.encode(), value.encode("utf-8")) for name, value in fields]
    await messages(ForwardedMiddleware(app, trusted, root_path), scope)
    return received[0]


def parsed(text: str) -> str | None:
    """The address in an element of X-Forwarded-For."""
    if text.startswith("[") and "]" in text:
        text = text[1 : text.index("]")]
    elif text.count(":") == 1:
        text = text.split(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def expected_client(trusted: str, chain: list[str], peer: str = PEER) -> str:
    """The client by the words: hop by hop from the server outwards, as long as each hop is a trusted proxy."""
    hops = int(trusted.replace("*", "1")) if trusted.replace("*", "1").isdigit() else None
    networks = [] if hops is not None else [ip_network(part.strip()) for part in trusted.split(",") if part.strip()]
    client, said = peer, [text for text in chain if text.strip()]
    number = 0
    while said:
        is_proxy = number < hops if hops is not None else any(ip_address(client) in each for each in networks)
        address = parsed(said.pop().strip())
        if not is_proxy or address is None:
            break
        client, number = address, number + 1
    return client


@given(
    trusted=st.sampled_from(TRUSTED),
    lists=st.lists(st.lists(st.sampled_from(ADDRESSES + GARBAGE), max_size=4), max_size=3),
)
async def test_the_client_is_found_from_the_right_past_trusted_proxies(trusted: str, lists: list[list[str]]) -> None:
    scope = await seen(trusted, [("x-forwarded-for", ", ".join(chain)) for chain in lists])
    assert scope["client"][0] == expected_client(trusted, [text for chain in lists for text in chain])


@given(trusted=st.sampled_from(TRUSTED), forged=st.lists(st.sampled_from(ADDRESSES + GARBAGE), max_size=5))
async def test_what_a_client_writes_is_never_its_address(trusted: str, forged: list[str]) -> None:
    """One proxy appends the real address, whatever came before it."""
    chain = [*forged, "198.51.100.1"]
    if trusted not in {"2", "3"}:  # a wrong setting: it says that there are more proxies
        scope = await seen(trusted, [("x-forwarded-for", ", ".join(chain))])
        assert scope["client"][0] in {"198.51.100.1", PEER}


async def test_a_socket_without_an_address_is_trusted_by_the_number_of_proxies_only() -> None:
    fields = [("x-forwarded-for", "198.51.100.1:99")]
    assert (await seen("1", fields, peer=None))["client"] == ("198.51.100.1", 99)
    assert (await seen("10.0.0.0/8", fields, peer=None))["client"] is None


@pytest.mark.parametrize(
    ("proto", "chain", "scheme"),
    [
        (["https"], "198.51.100.1", "https"),
        (["https,http"], "198.51.100.1", "https"),
        (["https", "http"], "198.51.100.1", "https"),
        ([" HTTPS , http"], "198.51.100.1, 10.0.0.1", "https"),
        (["https, http"], "1.1.1.1, 198.51.100.1", "http"),  # the first of each was written by the client
        (["http,https"], "198.51.100.1, 10.0.0.1", "http"),
        (["https"], "", "https"),
        (["ftp"], "198.51.100.1", "http"),
        ([""], "198.51.100.1", "http"),
        ([], "198.51.100.1", "http"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_scheme_is_the_one_that_the_client_used(proto: list[str], chain: str, scheme: str, kind: str) -> None:
    plain, secure = {"http": ("http", "https"), "websocket": ("ws", "wss")}[kind]
    fields = [("x-forwarded-for", chain), *(("x-forwarded-proto", value) for value in proto)]
    for trusted in ("10.0.0.0/8", "192.0.2.0/24"):
        scope = await seen(trusted, fields, type=kind, scheme=plain)
        assert scope["scheme"] == (secure if scheme == "https" and trusted == "10.0.0.0/8" else plain)


PREFIXES = ["/shop", "/a/b", "/x-1.y_z~"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ["/api/things", "/", "/shopping", "/c%2Fd"])
async def test_a_prefix_comes_before_the_path_whether_the_proxy_strips_it_or_not(prefix: str, path: str) -> None:
    decoded = path.replace("%2F", "/")
    for sent in ("", prefix):
        arrived: dict[str, Any] = {"path": sent + decoded, "raw_path": (sent + path).encode()}
        scope = await seen("", [], root_path=prefix, **arrived)
        assert (scope["root_path"], scope["path"]) == (prefix, prefix + decoded)
        assert scope["raw_path"] == (prefix + path).encode()
    scope = await seen("*", [("x-forwarded-prefix", f"{prefix}/")], path=decoded, raw_path=path.encode())
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
        prefix,
        prefix + decoded,
        (prefix + path).encode(),
    )


@pytest.mark.parametrize(
    "value", ["", "/", "https://evil.example", "//evil.example", "/a\r\nX: y", "/<b>", "/é", "/" + "x" * 3000]
)
async def test_a_prefix_cannot_name_another_host_or_inject_text(value: str) -> None:
    scope = await seen("1", [("x-forwarded-prefix", value)])
    assert scope["root_path"] in {"", "/evil.example"}
    assert (await seen("", [("x-forwarded-prefix", "/shop")]))["root_path"] == ""


@pytest.mark.parametrize("behind", ["setting", "setting, not stripped", "header"])
async def test_links_and_the_document_have_the_prefix(behind: str) -> None:
    app = build(http={"docs": True, "root_path": "" if behind == "header" else "/shop"})
    router = APIRouter()

    @router.post("/made", status_code=201)
    async def make(request: Request, response: Response) -> str:
        Links(request, response).created(7)
        Links(request, response).page("next")
        return str(request.url_for("make"))

    router.add_api_route("/health/live", lambda: None)
    app.include_router(router)
    add_docs(app)
    external = "/shop" if "not stripped" in behind else ""
    fields = {"X-Forwarded-Prefix": "/shop"} if behind == "header" else {}
    async with client(app, "http://test") as session:
        made = await session.post(f"{external}/made", headers=fields)
        assert (made.status_code, made.json()) == (201, "http://test/shop/made")
        assert made.headers["Location"] == "/shop/made/7"
        assert made.headers["Link"].startswith("</shop/made>;")
        documents = [(await session.get(f"{external}/openapi.json", headers=fields)).json() for _ in range(2)]
        assert documents[0] == documents[1]
        assert documents[0]["servers"] == [{"url": "/shop"}]
        page = (await session.get(f"{external}/docs", headers=fields)).text
        assert 'src="docs/start.js"' in page  # relative to /shop/docs
        with recorded() as lines:
            assert (await session.get(f"{external}/health/live", headers=fields)).status_code == 200
        assert lines == []


async def test_without_a_prefix_the_document_names_no_server() -> None:
    app = build(http={"docs": True})
    add_docs(app)
    async with client(app) as session:
        assert "servers" not in (await session.get("/openapi.json")).json()
