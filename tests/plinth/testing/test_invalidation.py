"""`stale_answers` finds each invalidation that was forgotten, whatever cached the answer, and nothing else."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from fastapi import Body, FastAPI, HTTPException, Response
from httpx import ASGITransport, AsyncClient

from plinth.testing.invalidation import stale_answers
from plinth.testing.resources import Resource, Resources, read_routes, write_routes

KINDS = ("shelves", "books")
RESOURCES = Resources(
    Resource("/shelves", create={"name": "Shelf {n}"}),
    Resource("/books", create={"name": "Book {n}", "shelf": 1}, change={"name": "Renamed {n}"}),
    bodies={("POST", "/books/{id}/lend"): None},
    urls={"/found": ["/found?q="]},
)


class Library:
    """Shelves and books. Its apps cache each GET but /now until something of the kinds that it shows is written."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, dict[str, object]]] = {kind: {} for kind in KINDS}
        self.requests = 0

    def app(self, forgotten: tuple[str, str] | None = None) -> FastAPI:
        """`forgotten` is a path whose cached answers the writes of a kind leave."""
        app = FastAPI()
        cache: dict[str, tuple[int, object]] = {}

        def cached(url: str, value: object | None) -> object:
            found = cache.setdefault(url, (404 if value is None else 200, deepcopy(value)))
            if found[0] == 404:
                raise HTTPException(404, f"There is no {url}.")
            return found[1]

        def written(kind: str) -> None:
            for url in [*cache]:
                pattern = next(path for path in ("/found", "/shelves", "/books") if url.startswith(path))
                pattern += "/{id}" if url.count("/") == 2 else ""
                if (pattern, kind) != forgotten:
                    del cache[url]

        def shown(kind: str, id: int) -> dict[str, object] | None:
            row = self.rows[kind].get(id)
            return row and {**row, "books": [book for book in self.rows["books"].values() if kind == "shelves"]}

        for kind in KINDS:
            self.add(app, kind, cached, written, shown)

        @app.get("/found")
        async def find(q: str) -> object:
            rows = [row for kind in KINDS for row in self.rows[kind].values()]
            return cached(f"/found?q={q}", [row for row in rows if q in str(row["name"])])

        @app.get("/now")
        async def now() -> int:
            self.requests += 1
            return self.requests

        @app.post("/books/{id}/lend")
        async def lend(id: int) -> None:
            self.rows["books"][id]["lent"] = True
            written("books")

        return app

    def add(self, app: FastAPI, kind: str, cached, written, shown) -> None:  # type: ignore[no-untyped-def]
        rows = self.rows[kind]

        @app.get(f"/{kind}")
        async def page() -> object:
            return cached(f"/{kind}", [dict(row) for row in rows.values()])

        @app.get(f"/{kind}/{{id}}")
        async def get(id: int) -> object:
            return cached(f"/{kind}/{id}", shown(kind, id))

        @app.post(f"/{kind}", status_code=201)
        async def create(data: dict[str, object] = Body()) -> None:
            rows[len(rows) + 1] = data
            written(kind)

        @app.put(f"/{kind}/{{id}}")
        @app.patch(f"/{kind}/{{id}}")
        async def change(id: int, data: dict[str, object] = Body()) -> None:
            rows[id] |= data
            written(kind)

        @app.delete(f"/{kind}/{{id}}", status_code=204)
        async def delete(id: int) -> Response:
            if kind == "shelves" and any(book["shelf"] == id for book in self.rows["books"].values()):
                raise HTTPException(409, "It has books.")
            del rows[id]
            written(kind)
            return Response(status_code=204)


WRITES = write_routes(Library().app())
# Which reads show something of a kind that is written.
SHOWING = {
    "shelves": {"/shelves", "/shelves/{id}", "/found"},
    "books": {"/books", "/books/{id}", "/shelves/{id}", "/found"},
}


async def found(
    forgotten: tuple[str, str] | None, write: tuple[str, str], resources: Resources = RESOURCES
) -> set[str]:
    """The paths that are stale after the write."""
    library = Library()
    app = library.app(forgotten)

    @asynccontextmanager
    async def without_cache() -> AsyncIterator[AsyncClient]:
        async with AsyncClient(transport=ASGITransport(library.app()), base_url="http://other") as client:
            yield client

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        sentences = await stale_answers(client, without_cache, resources, read_routes(app), write)
    assert all(sentence.startswith(f"After {write[0]} {write[1]}, GET /") for sentence in sentences)
    urls = [sentence.split("GET ")[1].split(" is ")[0].partition("?")[0] for sentence in sentences]
    return {url if url.count("/") == 1 else f"/{url.split('/')[1]}/{{id}}" for url in urls}


@pytest.mark.parametrize("write", WRITES)
async def test_nothing_is_found_where_nothing_is_forgotten(write: tuple[str, str]) -> None:
    assert await found(None, write) == set()


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (write, read)
        for write, read in product(WRITES, sorted(SHOWING["books"] | SHOWING["shelves"]))
        if read in SHOWING[write[1].split("/")[1]]
    ],
)
async def test_each_forgotten_invalidation_is_found(write: tuple[str, str], read: str) -> None:
    kind = write[1].split("/")[1]
    stale = await found((read, kind), write)
    assert stale == {read}


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_without_a_body_is_named(write: tuple[str, str]) -> None:
    urls = {"/found": ["/found?q="], "/books/{id}": ["/books"]}
    only_shelves = Resources(Resource("/shelves", create={"name": "Shelf {n}"}), urls=urls)
    if write[1].startswith("/shelves"):
        assert await found(None, write, only_shelves) == set()
    else:
        with pytest.raises(LookupError, match=rf"^{write[0]} /books\S* has no body .* tests/app/resources\.py"):
            await found(None, write, only_shelves)


async def test_a_read_or_a_write_that_is_refused_is_named() -> None:
    with pytest.raises(AssertionError, match=r"^GET /found is answered by 422 only: add a URL of it to `urls`"):
        await found(None, ("POST", "/books"), Resources(*RESOURCES._resources))
    refused = Resources(*RESOURCES._resources, bodies={("DELETE", "/shelves/{id}"): None}, urls=RESOURCES._urls)
    refused.request = lambda *_: ("/shelves/1", None)  # type: ignore[method-assign]
    with pytest.raises(
        AssertionError, match=r"^DELETE /shelves/1 is refused \(.*It has books.*\), so it tests nothing"
    ):
        await found(None, ("DELETE", "/shelves/{id}"), refused)


def rooms_and_guests(new_id: Callable[[int], Any], forgets: bool) -> FastAPI:
    """Rooms, and the guests in each, which a room shows. With `forgets`, a room is shown as it was first."""
    app, rooms, shown = FastAPI(), dict[str, dict[str, Any]](), dict[str, object]()

    @app.post("/rooms", status_code=201)
    async def open_room(data: dict[str, str] = Body()) -> dict[str, Any]:
        id = new_id(len(rooms) + 1)
        rooms[str(id)] = {**data, "id": id, "guests": {}}
        return rooms[str(id)]

    @app.post("/rooms/{room}/guests", status_code=201)
    async def come(room: str, data: dict[str, Any] = Body()) -> dict[str, Any]:
        assert str(data["knows"]) in rooms
        id = new_id(len(rooms[room]["guests"]) + 1)
        rooms[room]["guests"][str(id)] = data
        return {"id": id}

    @app.get("/rooms/{room}")
    async def look(room: str) -> object:
        if room not in rooms:
            raise HTTPException(404)
        return shown.setdefault(room, deepcopy(rooms[room])) if forgets else rooms[room]

    @app.delete("/rooms/{room}/guests/{guest}", status_code=204)
    async def leave(room: str, guest: str) -> None:
        del rooms[room]["guests"][guest]

    app.state.rooms = rooms
    return app


@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize(
    "new_id", [int, lambda number: UUID(int=number + 99), lambda number: f"the-{number}th"], ids=["int", "UUID", "text"]
)
async def test_ids_may_be_of_any_type_and_resources_below_another(new_id: Callable[[int], Any], forgets: bool) -> None:
    reference = "{/rooms}" if new_id is not int else 1
    resources = Resources(
        Resource("/rooms", create={"name": "Room {n}"}),
        Resource("/rooms/{room}/guests", create={"name": "Guest {n}", "knows": reference}),
    )
    for write in [("POST", "/rooms/{room}/guests"), ("DELETE", "/rooms/{room}/guests/{guest}"), ("POST", "/rooms")]:
        app, fresh = (rooms_and_guests(new_id, forgets and is_cached) for is_cached in (True, False))

        @asynccontextmanager
        async def without_cache(app: FastAPI = app, fresh: FastAPI = fresh) -> AsyncIterator[AsyncClient]:
            fresh.state.rooms.update(app.state.rooms)
            async with AsyncClient(transport=ASGITransport(fresh), base_url="http://other") as client:
                yield client

        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            sentences = await stale_answers(client, without_cache, resources, read_routes(app), write)
        assert len(sentences) == (forgets and write[1] != "/rooms"), sentences
