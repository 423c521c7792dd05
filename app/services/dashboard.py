from asyncio import gather
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from app import tags
from app.repositories.dashboard import DashboardQueries
from app.schemas.dashboard import BoughtProduct, Dashboard, LatestOrder, NewProduct, OrderCount
from plinth.cache import Cache, Tag
from plinth.errors import DeadlineError
from plinth.resilience import deadline
from plinth.security import Principal

TTL = 60.0
PART_SECONDS = 2.0


class DashboardReader:
    """Reads the parts at the same time, each on a connection of its own, and keeps each for as long as it is true."""

    def __init__(self, dashboard: DashboardQueries, cache: Cache) -> None:
        self._dashboard = dashboard
        self._cache = cache

    async def get(self, user: Principal) -> Dashboard:
        id, read = int(user.id), self._dashboard
        parts = {
            "counts": self._part(f"counts:{id}", OrderCount, partial(read.counts, id), tags=[tags.ORDERS(id)]),
            "latest": self._part(f"latest:{id}", LatestOrder, partial(read.latest, id), tags=[tags.ORDERS(id)]),
            "bought": self._part(f"bought:{id}", BoughtProduct, partial(read.bought, id), tags=[tags.ORDERS(id)]),
            "new": self._part("new", NewProduct, read.new, tags=[tags.PRODUCTS, tags.IMPORTS]),
        }
        found = dict(zip(parts, await gather(*parts.values()), strict=True))
        return Dashboard(**found, missing=[name for name, part in found.items() if part is None])

    async def _part(
        self, key: str, schema: Any, read: Callable[[], Awaitable[list[Any]]], *, tags: Iterable[Tag]
    ) -> list[Any] | None:
        """None where it takes too long: then its query is cancelled, unless another request waits for it as well."""

        async def load() -> list[Any]:
            return [schema.model_validate(row, from_attributes=True) for row in await read()]

        try:
            async with deadline(PART_SECONDS):
                return await self._cache.remember(f"dashboard:{key}", TTL, load, schema=list[schema], tags=tags)
        except DeadlineError:
            return None
