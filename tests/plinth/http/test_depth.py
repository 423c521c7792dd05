"""What a request may cost to parse: JSON of so many levels, so many parameters and fields, and nothing compressed."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Form, Request
from fastapi.routing import APIRoute
from httpx import AsyncClient
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from plinth.http import FastRoute, JsonDepthMiddleware
from tests.plinth.http.apps import JSON, build, client, http_scope, messages

MOST = 64
DEEP = "The request body is nested too deeply."
BODY_BYTES = 262_144


def make_app() -> FastAPI:
    app = build()
    for prefix, kind in (("/fast", FastRoute), ("/stock", APIRoute)):
        router = APIRouter(prefix=prefix, route_class=kind)

        @router.post("/json")
        async def json_(data: dict[str, Any]) -> dict[str, Any]:
            return data

        @router.post("/raw")
        async def raw(request: Request) -> Any:
            return await request.json()

        @router.post("/form")
        async def form(name: Annotated[str, Form()]) -> str:
            return name

        @router.get("/query")
        async def query(name: str = "") -> str:
            return name

        app.include_router(router)
    return app


@pytest.fixture
async def bounded() -> AsyncIterator[AsyncClient]:
    async with client(make_app()) as session:
        yield session


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    """An object with so many levels."""
    return b'{"a": %b}' % (opening * (levels - 1) + closing * (levels - 1)).encode()


HOSTILE = {
    "arrays": nested(MOST + 1),
    "objects": b'{"a":' * (MOST + 1) + b"1" + b"}" * (MOST + 1),
    "as deep as the parser goes": nested(900),
    "deeper than that": nested(BODY_BYTES // 2 - 10),
    "without an end": b"[" * BODY_BYTES,
    "many that are deep": b"[" + b",".join([b"[" * 900 + b"]" * 900] * 140) + b"]",
    "after a string": b'{"a": "]]]]\\"]]]]", "b": ' + nested(MOST) + b"}",
    "after an escape": b'{"a": "\\\\", "b": ' + nested(MOST) + b"}",
    "not JSON": b"[" * 70 + b"?",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("path", ["/fast/json", "/stock/json", "/fast/raw", "/stock/raw"])
@pytest.mark.parametrize("type", ["application/json", "application/vnd.api+JSON; charset=utf-8"])
async def test_json_that_is_nested_too_deeply_is_refused(
    bounded: AsyncClient, path: str, content: bytes, type: str
) -> None:
    answer = await bounded.post(path, content=content, headers={"Content-Type": type})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["detail"] == DEEP


async def test_hostile_json_is_not_parsed(bounded: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []
    monkeypatch.setattr(json, "loads", parsed.append)
    for content in HOSTILE.values():
        for path in ("/fast/json", "/stock/json"):
            await bounded.post(path, content=content, headers=JSON)
    assert parsed == []


ACCEPTED = {
    "so many levels": nested(MOST),
    "brackets in a string": json.dumps({"a": "[{" * 1000}).encode(),
    "quotes in a string": json.dumps({"a": '"[\\' * 500, '[\\"[': "[" * 100}).encode(),
    "one after the other": json.dumps({"a": [[]] * 1000}).encode(),
}


@pytest.mark.parametrize("content", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("path", ["/fast/json", "/stock/json"])
async def test_any_other_json_is_accepted(bounded: AsyncClient, path: str, content: bytes) -> None:
    answer = await bounded.post(path, content=content, headers=JSON)
    assert (answer.status_code, answer.json()) == (200, json.loads(content))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("path", ["/fast/json", "/stock/json"])
async def test_no_encoding_hides_levels(bounded: AsyncClient, path: str, encoding: str) -> None:
    for levels in (2, 900):
        answer = await bounded.post(path, content=nested(levels).decode().encode(encoding), headers=JSON)
        assert answer.status_code == 400
        assert "UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/fast/json", "/stock/json"])
async def test_no_body_is_decompressed(bounded: AsyncClient, path: str) -> None:
    bomb = gzip.compress(b'{"a": "' + b"a" * 10_000_000 + b'"}')
    for content in (bomb, gzip.compress(b'{"a": 1}')):
        answer = await bounded.post(path, content=content, headers={**JSON, "Content-Encoding": "gzip"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")


VALUES = st.recursive(
    st.none() | st.integers() | st.text('[]{}"\\aé', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if isinstance(value, (list, dict)):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(VALUES, st.booleans(), st.lists(st.integers(0, 200)))
@example(["\\", [[]]], False, [2, 3])
async def test_levels_are_counted_in_any_parts(value: Any, ascii: bool, cuts: list[int]) -> None:
    content = json.dumps(value, ensure_ascii=ascii).encode()
    ends = sorted({min(cut, len(content)) for cut in cuts} | {len(content)})
    parts = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert await passes(parts, depth(value))
    assert depth(value) == 0 or not await passes(parts, depth(value) - 1)


async def passes(parts: list[bytes], most: int) -> bool:
    async def app(_: Scope, receive: Receive, __: Send) -> None:
        while (await receive())["more_body"]:
            pass

    left = [*parts]

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    try:
        await messages(JsonDepthMiddleware(app, most), http_scope(content_type="application/json"), receive)
    except HTTPException:
        return False
    return True


@pytest.mark.parametrize("path", ["/fast/query", "/stock/query", "/nothing"])
async def test_a_query_has_so_many_parameters(bounded: AsyncClient, path: str) -> None:
    for separator in ("&", "&a=1&name=", "&&"):
        query = separator.join(["name=b"] + [""] * 1000)
        answer = await bounded.get(f"{path}?{query}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert answer.json()["detail"] == "The query string has too many parameters. At most 1000 are allowed."
    answer = await bounded.get(f"{path}?{'&'.join(['name=b'] * 1000)}")
    assert answer.status_code == (404 if path == "/nothing" else 200)


@pytest.mark.parametrize("path", ["/fast/form", "/stock/form"])
async def test_a_form_has_so_many_fields(bounded: AsyncClient, path: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await bounded.post(path, content="name=b" + "&a=1" * 999, headers=form)).json() == "b"
    part = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nb\r\n'
    for content, type in (
        (b"name=b" + b"&a=1" * 1000, form["Content-Type"]),
        (b"a&" * (BODY_BYTES // 2), form["Content-Type"]),
        (part * 1001 + b"--x--\r\n", "multipart/form-data; boundary=x"),
    ):
        answer = await bounded.post(path, content=content, headers={"Content-Type": type})
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert "Too many fields" in answer.json()["detail"]
