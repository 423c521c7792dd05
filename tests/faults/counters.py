"""A service of plinth's parts with one table of its own: whichever resources `app/` has, these suites run.

Each row of the table is a number that is cached, and that any client may set.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, bindparam, select, update

from plinth.cache import CachedRoutes, ResponseCacheMiddleware, Tag, cached_response, open_cache, open_redis
from plinth.database import Query, open_database
from plinth.errors import NotFoundError
from plinth.http import ConditionalMiddleware, FastRoute, ValidatorsMiddleware, exception_handlers
from plinth.settings import Settings, load_settings

ROWS = 10
COUNTERS = Table("counters", MetaData(), Column("id", BigInteger, primary_key=True), Column("value", Integer))
BY_ID = Query(int, select(COUNTERS.c.value).where(COUNTERS.c.id == bindparam("id", type_=BigInteger)))
COUNTER = Tag("counter:{id}")


class Counter(BaseModel):
    value: int


router = APIRouter(route_class=FastRoute)


@router.get("/counters/{id:digits}")
@cached_response(ttl=60.0, tags=[COUNTER])
async def get_counter(id: int, request: Request) -> Counter:
    value = await request.state.database.reads.first(BY_ID, id=id)
    if value is None:
        raise NotFoundError("counter", id)
    return Counter(value=value)


@router.put("/counters/{id:digits}")
async def set_counter(id: int, data: Counter, request: Request) -> Counter:
    async with request.state.database.sessions.begin() as session:
        await session.execute(update(COUNTERS).where(COUNTERS.c.id == id).values(value=data.value))
        session.after_commit(partial(request.state.cache.invalidate, COUNTER(id).name))
    return data


@router.get("/ready")
async def ready() -> None:
    """It is served from the end of the lifespan's start on."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    settings = load_settings(Settings)
    async with (
        open_database(settings.database, "counters") as database,
        open_redis(settings.redis) as redis,
        open_cache(settings.cache, redis, settings.redis.timeout_seconds) as cache,
    ):
        yield {"database": database, "cache": cache}


app = FastAPI(lifespan=lifespan, exception_handlers=exception_handlers)
app.include_router(router)
routes = CachedRoutes()
routes.add_all_of(app)
app.add_middleware(ValidatorsMiddleware)
app.add_middleware(ConditionalMiddleware)
app.add_middleware(
    ResponseCacheMiddleware, routes=routes, gzip_level=0, gzip_minimum_bytes=0, enabled=True, debug_header=True
)


@pytest.fixture
async def counters(onlooker: asyncpg.Connection) -> AsyncIterator[None]:
    """The table, with the ids from 1 to ROWS at 0."""
    await onlooker.execute("CREATE TABLE counters (id bigint PRIMARY KEY, value int NOT NULL)")
    await onlooker.execute(f"INSERT INTO counters SELECT id, 0 FROM generate_series(1, {ROWS}) AS id")
    yield
    await onlooker.execute("DROP TABLE counters")
