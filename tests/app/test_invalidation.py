"""No write leaves an answer in a cache that it has made out of date, and no list is sorted without an index."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules
from uuid import uuid4

import asyncpg
import pytest
from httpx import AsyncClient

from app import repositories
from app.enums import Role
from app.main import app, create_app
from app.settings import Settings
from plinth.database import Keyset
from plinth.testing.client import serve
from plinth.testing.indexes import sorts_without_index
from plinth.testing.invalidation import stale_answers
from plinth.testing.resources import read_routes, write_routes
from tests.app.accounts import headers_of
from tests.app.resources import RESOURCES

MODULES = [import_module(f"app.repositories.{each.name}") for each in iter_modules(repositories.__path__)]
LISTS = [value for module in MODULES for value in vars(module).values() if isinstance(value, Keyset)]


@pytest.mark.parametrize(("method", "path"), write_routes(app))
async def test_a_write_leaves_no_stale_answer(settings: Settings, empty_tables: None, method: str, path: str) -> None:
    headers = headers_of(settings, Role.ADMIN)
    kept = settings.cache.model_copy(update={"namespace": uuid4().hex})
    without_redis = settings.redis.model_copy(update={"url": None})

    @asynccontextmanager
    async def without_cache() -> AsyncIterator[AsyncClient]:
        other = create_app(settings.model_copy(update={"redis": without_redis}))
        async with serve(other) as service, service.client(headers) as client:
            yield client

    cached = create_app(settings.model_copy(update={"cache": kept}))
    async with serve(cached) as service, service.client(headers) as client:
        stale = await stale_answers(client, without_cache, RESOURCES, read_routes(app), (method, path))
    assert not stale, "\n".join(stale)


async def test_every_sort_has_an_index(onlooker: asyncpg.Connection) -> None:
    missing = await sorts_without_index(onlooker, LISTS)
    assert not missing, "\n".join(missing)
