import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from app.schemas.health import Check, Readiness
from plinth.database import Database

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0  # a probe that takes longer has failed


class HealthService:
    def __init__(self, database: Database, redis: Redis | None, *, draining: bool) -> None:
        self._database = database
        self._redis = redis
        self._draining = draining

    async def readiness(self) -> Readiness:
        """The service needs its database; without its cache it is only slower."""
        database, cache = await asyncio.gather(_check("database", self._database.ping), self._check_cache())
        if self._draining:
            return Readiness(status="draining", database=database, cache=cache)
        if database.status == "down":
            return Readiness(status="unavailable", database=database, cache=cache)
        return Readiness(status="degraded" if cache.status == "down" else "ready", database=database, cache=cache)

    async def _check_cache(self) -> Check:
        return Check(status="off", seconds=0) if self._redis is None else await _check("cache", self._redis.ping)


async def _check(name: str, ping: Callable[[], Awaitable[object]]) -> Check:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await ping()
    except Exception as error:  # a probe answers, whichever error it is
        log.warning("The %s does not answer: %r", name, error)
        return Check(status="down", seconds=round(time.perf_counter() - started, 6))
    return Check(status="up", seconds=round(time.perf_counter() - started, 6))
