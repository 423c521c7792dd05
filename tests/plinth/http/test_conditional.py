"""What a condition means, whoever made the answer: by its tags, else by its date."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Message

from plinth.cache import cached_response
from plinth.http import Validators, accepted_versions
from plinth.http.conditional import IF_MATCH, http_date, is_unchanged, validating
from tests.plinth.http.apps import build, client, http_scope, messages

WHEN = datetime(2026, 11, 21, 8, 5, 6, 999, UTC)
DATE = "Sat, 21 Nov 2026 08:05:06 GMT"
SHOWN = {b"etag": b'"7.a-gzip"', b"last-modified": DATE.encode()}
NONE_MATCH, SINCE = b"if-none-match", b"if-modified-since"


@pytest.mark.parametrize("at", [WHEN, WHEN.astimezone(timezone(timedelta(hours=-9)))])
def test_a_date_is_in_greenwich(at: datetime) -> None:
    assert http_date(at).decode() == DATE


@pytest.mark.parametrize(
    ("name", "value", "unchanged"),
    [
        *((NONE_MATCH, tag, True) for tag in ('"7.a-gzip"', '"7.a"', 'W/"7.a"', '"x,", "7.a"', '"x",,W/"7.a" ', "*")),
        *((NONE_MATCH, tag, False) for tag in ('"7.b"', '"7"', "7.a", '"x", *', "", '"8.a"', '"7.a')),
        (SINCE, DATE, True),
        (SINCE, "Saturday, 21-Nov-26 08:05:06 GMT", True),
        (SINCE, "Sat Nov 21 08:05:07 2026", True),
        (SINCE, "Sat, 21 Nov 2026 08:05:05 GMT", False),
        *((SINCE, wrong, False) for wrong in ("yesterday", "", "Sat, 99 Nov 2026 08:05:06 GMT", "\xff")),
    ],
)
def test_a_condition_is_weighed(name: bytes, value: str, unchanged: bool) -> None:
    condition = [(name, value.encode("latin-1"))]
    assert is_unchanged(condition, SHOWN) is unchanged
    assert is_unchanged(condition, {}) is False
    if name == NONE_MATCH:
        assert is_unchanged([*condition, (SINCE, DATE.encode())], SHOWN) is unchanged  # a date counts only by itself


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        ('"7.9c1185a5c5e9fc54"', {7}),
        ('"7.9c1185a5c5e9fc54-gzip", W/"8.x" ,, "9"', {7, 8, 9}),
        ('"other", "9999999999.a", "2147483648", "-1", "1a"', set()),
        ('"a,b", "1.\xff"', {1}),
        *((wrong, 400) for wrong in ("", ",", "7", '"7', '"7" "8"', '"7", *', 'w/"7"', '"7";', ", " * 4000 + "x")),
    ],
)
def test_if_match_names_versions(header: str | None, versions: Any) -> None:
    scope = http_scope()
    if header is not None:
        scope["headers"] = [(b"if-match", header.encode("latin-1"))]
        documented = re.search(IF_MATCH["schema"]["pattern"], header) is not None  # type: ignore[index]
        assert not documented or versions != 400
    if versions == 400:
        with pytest.raises(HTTPException, match=r"^400: If-Match must be"):
            accepted_versions(scope, required=False)
    else:
        assert accepted_versions(scope, required=False) == versions
    if header is None:
        with pytest.raises(HTTPException, match="428"):
            accepted_versions(scope, required=True)


class Row(BaseModel):
    version: int = 7
    text: str = "a" * 2000

    @property
    def last_modified_at(self) -> datetime:
        return WHEN


async def get_validators(request: Request) -> Validators:
    return Validators(request)


ValidatorsDep = Annotated[Validators, Depends(get_validators)]


def app_with_rows() -> FastAPI:
    app = build()

    @app.get("/row")
    @cached_response(ttl=60, tags=[], max_age=9)
    async def row(validators: ValidatorsDep) -> Row:
        return validators.of(Row())

    @app.patch("/row")
    async def change(validators: ValidatorsDep) -> Row:
        return validators.of(Row())

    @app.get("/list")
    @cached_response(ttl=60, tags=[])
    async def rows() -> list[int]:
        return [1, 2, 3]

    @app.get("/own")
    @cached_response(ttl=60, tags=[])
    async def own() -> Response:
        return Response("own", headers={"ETag": '"own"', "Cache-Control": "private"})

    @app.get("/stream")
    @cached_response(ttl=60, tags=[])
    async def stream() -> Response:
        return StreamingResponse(iter([b"1", b"2"]))

    @app.get("/etagged-stream")
    async def etagged_stream() -> Response:
        return StreamingResponse(iter([b"1", b"2"]), headers={"ETag": '"s"'})

    return app


@pytest.fixture(params=["the short way", "FastAPI's way"])
async def asked(request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    app = app_with_rows()
    if request.param != "the short way":
        app.dependency_overrides[http_date] = http_date  # any at all
    async with client(app) as to:
        to.headers["Accept-Encoding"] = "identity"
        yield to


async def test_both_ways_say_the_same(asked: AsyncClient) -> None:
    shown = await asked.get("/row")
    tag = shown.headers["ETag"]
    assert re.fullmatch(r'"7\.[0-9a-f]{16}"', tag)
    assert (shown.headers["Last-Modified"], shown.headers["Cache-Control"]) == (DATE, "public, max-age=9")
    zipped = await asked.get("/row", headers={"Accept-Encoding": "gzip"})
    assert (zipped.headers["ETag"], zipped.headers["Content-Encoding"]) == (tag[:-1] + '-gzip"', "gzip")
    for has in (tag, zipped.headers["ETag"]):
        unchanged = await asked.get("/row", headers={"If-None-Match": has})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", tag)
        assert (unchanged.headers["Vary"], "Content-Length" in unchanged.headers) == ("Accept-Encoding", False)
    changed = await asked.patch("/row", headers={"If-None-Match": tag, "Accept-Encoding": "gzip"})
    assert (changed.status_code, changed.headers["ETag"]) == (200, zipped.headers["ETag"])
    assert "Cache-Control" not in changed.headers
    head = await asked.head("/row")
    assert {**head.headers, "x-request-id": "", "x-process-time": ""} == {
        **shown.headers,
        "x-request-id": "",
        "x-process-time": "",
    }
    assert re.fullmatch(r'"[0-9a-f]{16}"', (await asked.get("/list")).headers["ETag"])
    own = await asked.get("/own")
    assert (own.headers["ETag"], own.headers["Cache-Control"]) == ('"own"', "private")
    assert "ETag" not in (await asked.get("/stream")).headers


async def test_the_headers_of_a_stream_are_not_held_back() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await validating(http_scope(), send)({"type": "http.response.start", "status": 200, "headers": []})
    assert len(sent) == 1


async def test_a_stream_that_the_client_has_is_ended() -> None:
    sent = await messages(app_with_rows(), http_scope("/etagged-stream", if_none_match='"s"'))
    assert (sent[0]["status"], sent[1:]) == (304, [{"type": "http.response.body", "body": b""}])
