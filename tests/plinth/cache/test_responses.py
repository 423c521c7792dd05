"""The response cache: one load, the same bytes for every client, validators, and nothing personal is cached."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from httpx import ASGITransport
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from plinth.cache import Cache, CachedRoutes, ResponseCacheMiddleware, Tag, cached_response
from plinth.errors import NotFoundError
from plinth.http import ConditionalMiddleware, ValidatorsMiddleware, exception_handlers, problem
from plinth.http.compression import GZipMiddleware
from tests.plinth.http.apps import http_scope

LARGE = "a" * 5000
THINGS, THING, NOTE = Tag("things"), Tag("thing:{id}"), Tag("note:{title}")


class Filters(BaseModel):
    limit: int = 10
    word: str = ""


def credentials(request: Request) -> list[str]:
    """A helper: what it reads cannot be seen at start-up."""
    return [request.headers.get("authorization", "none"), request.cookies.get("session", "none")]


class Shop:
    """A small app with cached routes, which counts the calls of its endpoints."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.calls: dict[str, int] = {}
        self.things: set[int] = set()
        self.go_on = asyncio.Event()
        self.go_on.set()
        app = FastAPI(exception_handlers=exception_handlers)
        self.add_endpoints(app)
        self.routes = CachedRoutes()
        self.routes.add_all_of(app)
        app.add_middleware(ValidatorsMiddleware)
        app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)
        app.add_middleware(ConditionalMiddleware)
        app.add_middleware(ResponseCacheMiddleware, self.routes, 4, 1000, debug_header=True)
        self.app = app

    def count(self, name: str) -> int:
        self.calls[name] = self.calls.get(name, 0) + 1
        return self.calls[name]

    def add_endpoints(self, app: FastAPI) -> None:
        @app.get("/things")
        @cached_response(ttl=60, tags=[THINGS])
        async def things(query: Annotated[Filters, Query()]) -> dict[str, Any]:
            await self.go_on.wait()
            return {"calls": self.count("things"), **query.model_dump()}

        @app.get("/things/{id}")
        @cached_response(ttl=60, tags=[THING, THINGS], max_age=5, missing_ttl=60)
        async def thing(id: int, response: Response) -> dict[str, Any]:
            response.headers["Link"] = "</things>; rel=up"
            if id == 0:
                raise HTTPException(404, str(self.count("404")))
            return {"calls": self.count(f"thing {id}"), "text": LARGE}

        @app.get("/missing/{id}", responses={404: {}})
        @cached_response(ttl=60, tags=[THING], missing_ttl=60)
        async def missing(id: int) -> int:
            self.count("missing")
            if id not in self.things:
                raise NotFoundError("thing", id)
            return id

        @app.get("/notes/{title}")
        @cached_response(ttl=60, tags=[NOTE])
        async def note(title: str) -> int:
            return self.count(f"note {title}")

        @app.get("/richer", responses={404: {}})
        @cached_response(ttl=60, tags=[], missing_ttl=60)
        async def richer() -> Response:
            return problem(404, str(self.count("richer")), errors=[])

        @app.get("/private")
        @cached_response(ttl=60, tags=[])
        async def private(response: Response) -> int:
            response.headers["Cache-Control"] = "private"
            return self.count("private")

        @app.get("/no-store")
        @cached_response(ttl=60, tags=[])
        async def no_store(response: Response) -> int:
            response.headers["Cache-Control"] = "No-Store, max-age=0"
            return self.count("no-store")

        @app.get("/personal")
        @cached_response(ttl=60, tags=[])
        async def personal(request: Request) -> list[str]:
            return credentials(request)

        @app.get("/cookie")
        @cached_response(ttl=60, tags=[])
        async def cookie(response: Response) -> int:
            response.set_cookie("a", "b")
            return self.count("cookie")

        @app.get("/stream")
        @cached_response(ttl=60, tags=[])
        async def stream() -> Response:
            async def rows() -> AsyncIterator[bytes]:
                for row in range(3):
                    yield b"%d\n" % row

            self.count("stream")
            return StreamingResponse(rows(), media_type="text/plain")

        @app.get("/plain")
        async def plain() -> int:
            return self.count("plain")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "state": {"cache": self.cache}}, receive, send)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=ASGITransport(self), base_url="http://test") as client:
            return await client.get(path, headers={"Accept-Encoding": "identity", **headers})


@pytest.fixture
def shop(cache: Cache) -> Shop:
    return Shop(cache)


async def test_load_shedding_can_find_out_what_is_in_memory(shop: Shop) -> None:
    scope = http_scope("/things/1")
    scope["state"] = {"cache": shop.cache}
    assert not shop.routes.has_in_memory(scope)
    await shop.get("/things/1")
    assert shop.routes.has_in_memory(scope)
    assert not shop.routes.has_in_memory({**scope, "query_string": b"other=1"})
    assert not shop.routes.has_in_memory({**scope, "state": {}})
    await shop.cache.invalidate(THING(1))
    assert not shop.routes.has_in_memory(scope)


async def test_a_response_is_built_once(shop: Shop) -> None:
    first, second = await shop.get("/things"), await shop.get("/things")
    assert first.json() == second.json() == {"calls": 1, "limit": 10, "word": ""}
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert first.headers["ETag"] == second.headers["ETag"]
    assert second.headers["Age"] == "0"
    assert second.headers["Cache-Control"] == "public, no-cache"


async def test_concurrent_requests_share_one_load(shop: Shop) -> None:
    shop.go_on.clear()
    requests = [asyncio.create_task(shop.get("/things")) for _ in range(100)]
    await asyncio.sleep(0)
    shop.go_on.set()
    assert {answer.json()["calls"] for answer in await asyncio.gather(*requests)} == {1}


@pytest.mark.parametrize("tag", [THINGS, THING(7), THING("7")])
async def test_a_response_is_built_again_after_an_invalidation(shop: Shop, tag: Tag) -> None:
    assert (await shop.get("/things/7")).json()["calls"] == 1
    await shop.cache.invalidate(THING(8))
    assert (await shop.get("/things/7")).json()["calls"] == 1
    await shop.cache.invalidate(tag)
    assert (await shop.get("/things/7")).json()["calls"] == 2


@pytest.mark.parametrize("title", ["a b", "a:b", "{title}", "100%", "Grüße"])
async def test_a_path_parameter_and_a_tags_value_are_quoted_alike(shop: Shop, title: str) -> None:
    path = f"/notes/{quote(title)}"
    assert [(await shop.get(path)).json() for _ in range(2)] == [1, 1]
    await shop.cache.invalidate(NOTE(title))
    assert (await shop.get(path)).json() == 2


def test_a_tag_whose_parameters_are_not_in_the_path_is_refused_at_start_up() -> None:
    app = FastAPI()

    @app.get("/things/{id}")
    @cached_response(ttl=60, tags=[THING, Tag("shop:{shop}:{floor}")])
    async def thing(id: int, shop: int) -> int:
        return id

    sentence = "@cached_response of /things/{id}: Tag('shop:{shop}:{floor}') needs shop, floor, which the path does not"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        CachedRoutes().add_all_of(app)


def test_a_text_is_refused_as_a_tag() -> None:
    text: Any = "things"
    with pytest.raises(TypeError, match=re.escape("Expected a Tag, not 'things'")):
        cached_response(ttl=60, tags=[text])


async def test_the_tags_of_all_routes_are_known(shop: Shop) -> None:
    assert shop.routes.tags == {THINGS, THING, NOTE}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/things?limit=5&word=a", "/things?word=a&limit=5", True),
        ("/things?word=a+b", "/things?word=a%20b", True),
        ("/things?limit=5", "/things?limit=05", True),
        ("/things?limit=5", "/things?limit=%2B5", True),
        ("/things?word=a", "/things?word=b", False),
        ("/things/7", "/things/8", False),
    ],
)
async def test_equal_queries_share_an_entry(shop: Shop, one: str, other: str, same: bool) -> None:
    assert (await shop.get(one)).headers["X-Cache"] == "miss"
    assert (await shop.get(other)).headers["X-Cache"] == ("hit" if same else "miss")


@pytest.mark.parametrize(
    "path", ["/things?junk=1", "/things?limit=1&limit=2", "/things?word=%FF", "/things?&&", "/things/007", "/plain"]
)
async def test_undeclared_or_ambiguous_requests_bypass_the_cache(shop: Shop, path: str) -> None:
    answers = [await shop.get(path) for _ in range(2)]
    assert sum(shop.calls.values()) == 2
    assert {answer.headers.get("X-Cache") for answer in answers} == {None if path == "/plain" else "bypass"}


async def test_a_declared_404_is_cached_until_the_resource_is_created(shop: Shop) -> None:
    first, second = [await shop.get("/missing/7") for _ in range(2)]
    assert (first.status_code, second.status_code, shop.calls) == (404, 404, {"missing": 1})
    assert [answer.headers["X-Cache"] for answer in (first, second)] == ["miss", "hit"]
    assert first.json() == second.json() | {"request_id": first.json()["request_id"]}
    assert second.json()["detail"] == "Thing 7 does not exist."
    assert (second.headers["Cache-Control"], "ETag" in second.headers) == ("no-cache", False)
    shop.things.add(7)
    await shop.cache.invalidate("thing:7")
    found = await shop.get("/missing/7")
    assert (found.status_code, found.json(), found.headers["X-Cache"]) == (200, 7, "miss")


async def test_a_load_sees_no_credentials(shop: Shop) -> None:
    first = await shop.get("/personal", Authorization="Bearer me", Cookie="session=mine")
    assert first.json() == ["none", "none"]
    assert (await shop.get("/personal", Authorization="Bearer you")).headers["X-Cache"] == "hit"


async def test_each_encoding_has_its_own_etag(shop: Shop) -> None:
    plain = await shop.get("/things/7")
    zipped = await shop.get("/things/7", **{"Accept-Encoding": "gzip"})
    assert shop.calls == {"thing 7": 1}
    assert "Content-Encoding" not in plain.headers
    assert (zipped.headers["Content-Encoding"], zipped.headers["X-Cache"]) == ("gzip", "hit")
    assert int(zipped.headers["Content-Length"]) < 1000 < int(plain.headers["Content-Length"])
    assert zipped.content == plain.content
    assert zipped.headers["ETag"] != plain.headers["ETag"]
    for answer in (plain, zipped):
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Cache-Control"] == "public, max-age=5"
        assert answer.headers["Link"] == "</things>; rel=up"


async def test_a_client_with_the_current_version_gets_304(shop: Shop) -> None:
    plain = (await shop.get("/things/7")).headers["ETag"]
    zipped = (await shop.get("/things/7", **{"Accept-Encoding": "gzip"})).headers["ETag"]
    for etags in (plain, zipped, f"W/{plain}", f'"other", {plain}', "*"):
        answer = await shop.get("/things/7", **{"If-None-Match": etags})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", plain)
        assert {"cache-control", "vary", "age"} <= answer.headers.keys()
        assert not {"content-length", "content-type"} & answer.headers.keys()
    assert (await shop.get("/things/7", **{"If-None-Match": '"other"'})).status_code == 200
    await shop.cache.invalidate("things")
    assert (await shop.get("/things/7", **{"If-None-Match": plain})).status_code == 200
    assert shop.calls == {"thing 7": 2}


@pytest.mark.parametrize("path", ["/personal", "/personal?junk=1", "/private", "/plain", "/things/0"])
async def test_conditions_work_the_same_with_and_without_the_cache(shop: Shop, path: str) -> None:
    first = await shop.get(path, **{"If-None-Match": "*"})
    shown = await shop.get(path)
    again = await shop.get(path, **{"If-None-Match": "*"})
    kept = {"etag", "vary", "cache-control"} & shown.headers.keys()
    for answer in (first, again):
        if shown.status_code == 200:  # there is a representation, with an ETag or without
            assert (answer.status_code, answer.content) == (304, b"")
            assert kept <= answer.headers.keys() <= kept | {"age", "x-cache"}
        else:
            assert answer.status_code == shown.status_code
        assert ("X-Cache" in answer.headers) is ("X-Cache" in shown.headers)


async def test_a_load_sees_no_conditions(shop: Shop) -> None:
    assert (await shop.get("/things", **{"If-None-Match": "*"})).status_code == 304
    assert (await shop.get("/things")).json()["calls"] == 1


@pytest.mark.parametrize(
    "path", ["/things/0", "/cookie", "/private", "/no-store", "/richer", "/stream", "/things?limit=x"]
)
async def test_personal_and_streamed_responses_are_not_cached(shop: Shop, path: str) -> None:
    answers = await asyncio.gather(*(shop.get(path) for _ in range(3)))
    answers += [await shop.get(path)]
    assert {answer.headers["X-Cache"] for answer in answers} == {"bypass"}
    assert path in {"/private", "/no-store"} or not any("ETag" in answer.headers for answer in answers)
    if path == "/things?limit=x":
        assert {answer.status_code for answer in answers} == {422}
    elif path == "/stream":
        assert {answer.text for answer in answers} == {"0\n1\n2\n"}
    else:
        bodies = [answer.text for answer in answers]
        assert len({*bodies}) == 4  # no client got the response of another one


@pytest.mark.parametrize("value", ["bytes=0-3", "bytes=-1", "bytes=99999-", "bytes=0-0,2-3", "lines=1", "x"])
async def test_a_cached_response_ignores_range(shop: Shop, value: str) -> None:
    for _ in range(2):  # a miss and a hit
        whole = await shop.get("/things/1")
        response = await shop.get("/things/1", range=value)
        assert (response.status_code, response.content) == (200, whole.content)
        assert "Content-Range" not in response.headers
        unmatched = await shop.get("/things/1", **{"Range": value, "If-Match": '"x"'})
        assert unmatched.status_code == 412
        assert unmatched.headers["Content-Type"] == "application/problem+json"
