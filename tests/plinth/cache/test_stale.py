"""Stale responses: only while the database is away, only for so long, marked, and never stored again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

import plinth.cache.cache
import plinth.cache.cached
import plinth.cache.middleware
import plinth.cache.stores
from plinth.cache import Cache, CachedRoutes, ResponseCacheMiddleware, Tag, cached_response
from plinth.cache.stores import Memory, MemoryStore
from plinth.database import Reads
from plinth.database.engine import PING
from plinth.errors import AppError, DeadlineError, NotFoundError, UnavailableError
from plinth.http import UnhandledErrorMiddleware, ValidatorsMiddleware, exception_handlers
from plinth.settings import Settings
from plinth.telemetry.requests import RequestRecord, current_record
from tests.faults.redis_server import restartable_server, wait_until
from tests.plinth.cache.support import bus_of, trusting_cache
from tests.plinth.database.silent import opened

TTL, STALE = 10.0, 60.0
ANSWERS = Tag("answers")


class Clock:
    """The time of the cache, which a test sets."""

    now = 1_000_000.0

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (plinth.cache.cache, plinth.cache.stores, plinth.cache.cached, plinth.cache.middleware):
                patch.setattr(module, "time", lambda: self.now)
            patch.setattr(plinth.cache.cache, "JITTER", 0.0)
            yield


class Service:
    """A service with one cached route, whose database may be away."""

    error: AppError | Exception | None = None

    def __init__(self, cache: Cache | None = None, reads: Reads | None = None, stale_seconds: float = STALE) -> None:
        self.value = 0
        self.loads = 0
        self.cache = cache or Cache(MemoryStore(Memory(max_entries=100, max_bytes=2**20)), stale_seconds)
        self.reads = reads
        routes = CachedRoutes()
        middleware = [
            Middleware(ResponseCacheMiddleware, routes, 4, 1000),
            Middleware(ValidatorsMiddleware),
            Middleware(UnhandledErrorMiddleware),
        ]
        self.app = FastAPI(exception_handlers=exception_handlers, middleware=middleware)

        @self.app.get("/answer", responses={404: {}})
        @cached_response(ttl=TTL, tags=[ANSWERS], missing_ttl=TTL)
        async def answer() -> int:
            return await self.load()

        routes.add_all_of(self.app)

    async def load(self) -> int:
        self.loads += 1
        if self.error:
            raise self.error
        return self.value + (await self.reads.first(PING) or 0 if self.reads else 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "app": self.app, "state": {"cache": self.cache}}, receive, send)

    async def get(self, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/answer", headers={name.replace("_", "-"): each for name, each in headers.items()})

    async def change(self) -> None:
        self.value += 1
        await self.cache.invalidate(ANSWERS)


STEPS = st.one_of(st.sampled_from(["get", "get", "change", "away", "back"]), st.floats(0.1, 2 * STALE))


@given(st.lists(STEPS, max_size=40))
@example(["get", 5.0, "get", "change", "away", 1.0 + STALE, "get", 4.0, "get"])  # from the last time it was served
async def test_only_while_the_database_is_away_and_never_for_longer_than_is_set(steps: list[str | float]) -> None:
    clock, service = Clock(), Service()
    kept: int | None = None
    expires_at = seen_at = 0.0
    changed_at: float | None = None
    async with clock.used():
        for step in steps:
            now = clock.now
            if isinstance(step, float):
                clock.now += step
            elif step == "change":
                await service.change()
                changed_at = changed_at or now
            elif step != "get":
                service.error = UnavailableError("away") if step == "away" else None
            else:
                loads, answer = service.loads, await service.get()
                is_current = kept is not None and changed_at is None and now < expires_at
                if is_current:
                    seen_at = now
                    assert (answer.json(), service.loads) == (kept, loads)
                elif service.error is None:
                    kept, expires_at, seen_at, changed_at = service.value, now + TTL, now, None
                    assert (answer.json(), service.loads) == (kept, loads + 1)
                else:
                    ceased_at = min(expires_at, changed_at or expires_at)
                    is_stale = answer.headers.get("x-cache") == "stale"
                    assert answer.status_code == (200 if is_stale else 503)
                    assert not is_stale or (answer.json() == kept and now < ceased_at + STALE)
                    last_known_at = expires_at if changed_at is None else min(expires_at, seen_at)
                    assert is_stale or kept is None or now >= last_known_at + STALE
                    continue
                assert (answer.status_code, answer.headers.get("x-cache")) == (200, None)


@pytest.mark.parametrize(
    ("error", "status"),
    [(UnavailableError("away"), 200), (DeadlineError(), 200), (RuntimeError(), 500), (NotFoundError("it", 1), 404)],
)
async def test_only_what_says_that_the_database_is_away_is_answered_so(error: Exception, status: int) -> None:
    clock, service = Clock(), Service()
    async with clock.used():
        assert (await service.get()).status_code == 200
        clock.now += TTL + 1
        service.error = error
        answer = await service.get()
        assert answer.status_code == status
        assert (answer.headers.get("x-cache") == "stale") == (status == 200)


async def test_zero_switches_it_off() -> None:
    clock, service = Clock(), Service(stale_seconds=0.0)
    async with clock.used():
        await service.get()
        service.error = UnavailableError("away")
        await service.cache.invalidate(ANSWERS)
        assert (await service.get()).status_code == 503
        clock.now += TTL
        assert (await service.get()).status_code == 503


async def test_it_is_marked_has_its_age_and_can_be_revalidated() -> None:
    clock, service = Clock(), Service()
    async with clock.used():
        etag = (await service.get()).headers["etag"]
        clock.now += TTL + 5
        service.error = UnavailableError("away")
        token = current_record.set(record := RequestRecord())
        for answer in (await service.get(), await service.get(if_none_match=etag)):
            assert (answer.headers["x-cache"], answer.headers["age"]) == ("stale", "15")
            assert answer.headers["etag"] == etag
        assert answer.status_code == 304
        assert (await service.get(if_match='"another"')).status_code == 412
        current_record.reset(token)
        assert record.cache == "stale"
        service.error = None
        assert "x-cache" not in (await service.get()).headers
        assert service.loads == 5


async def test_a_404_may_be_stale_too() -> None:
    clock, service = Clock(), Service()
    async with clock.used():
        service.error = NotFoundError("answer", 1)
        assert (await service.get()).status_code == 404
        clock.now += TTL
        service.error = UnavailableError("away")
        answer = await service.get()
        assert (answer.status_code, answer.headers["x-cache"]) == (404, "stale")


async def test_a_value_that_code_decides_on_is_never_stale() -> None:
    clock, service = Clock(), Service()
    async with clock.used():

        async def remembered() -> int:
            return await service.cache.remember("answer", TTL, service.load, schema=int, tags=[ANSWERS])

        assert await remembered() == 0
        service.error = UnavailableError("away")
        clock.now += TTL
        with pytest.raises(UnavailableError):
            await remembered()


async def test_while_redis_is_away_too(tmp_path: Path) -> None:
    with restartable_server(tmp_path) as server:
        async with trusting_cache(server.url) as cache:
            service = Service(cache)
            await wait_until(lambda: _is_hit(service))
            server.kill()
            await wait_until(lambda: not bus_of(cache).trusted)
            service.value = 1
            assert (await service.get()).json() == 1  # it is loaded, and not kept
            service.error = UnavailableError("away")
            answer = await service.get()
            assert (answer.json(), answer.headers["x-cache"]) == (0, "stale")


async def _is_hit(service: Service) -> bool:
    loads = service.loads
    await service.get()
    return service.loads == loads


async def test_a_silent_database(settings: Settings) -> None:
    """The first requests wait until that is known, and later ones for nothing."""
    async with asyncio.timeout(60), opened(settings) as (wire, database):
        service = Service(reads=database.reads)
        assert (await service.get()).json() == 1
        await service.cache.invalidate(ANSWERS)
        wire.silent = True
        answers = await asyncio.gather(*(service.get() for _ in range(20)))
        assert {(answer.json(), answer.headers.get("x-cache")) for answer in answers} == {(1, "stale")}
        assert database.reads.pulse.is_silent
        assert (await service.get()).headers["x-cache"] == "stale"
        assert database.reads._callers == 0
        wire.silent = False
        await wait_until(lambda: not database.reads.pulse.is_silent)
        assert "x-cache" not in (await service.get()).headers
