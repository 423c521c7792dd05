"""The ways to Redis: redis-py's client for whoever needs one, and the cache's own, which costs half as much.

The client lends a connection to each command until it is answered, and then takes it back. On a connection that is
shared many ask at once: Redis answers in their order, and tells what is published in between. redis-py also makes
these, and understands what comes.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from hiredis import PushNotification, pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError

from plinth.cache.settings import RedisSettings

# Who asks also says how long he waits. After a subscription, RESP2 has messages only. What redis-py is told of
# maintenance would make it connect anew, and nobody would know.
_OURS = {"socket_timeout": None, "protocol": 3, "maint_notifications_config": None}
_LOST = "The connection is lost"


@asynccontextmanager
async def open_redis(settings: RedisSettings) -> AsyncIterator[Redis | None]:
    """The process's client, or None where no REDIS_URL is set. Connects at the first command."""
    if settings.url is None:
        yield None
        return
    # The default pool raises when a burst wants more connections than it has; this one lets the burst wait.
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.max_connections,
        timeout=settings.timeout_seconds,
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        # By itself a client would repeat what was not answered, and whoever asked would wait as often as that.
        retry=Retry(NoBackoff(), 0, supported_errors=()),
    )
    async with Redis.from_pool(pool) as redis:
        yield redis


class SharedConnection:
    def __init__(self, redis: Redis, hear: Callable[[list[Any]], None]) -> None:
        """As those of the client; `hear` is called with what is published."""
        pool = redis.connection_pool
        self._connection = pool.connection_class(**pool.connection_kwargs | _OURS)
        self._hear = hear
        self._asked: deque[asyncio.Future[Any]] = deque()

    @asynccontextmanager
    async def opened(self, lost: asyncio.Event, timeout_seconds: float) -> AsyncIterator[Self]:
        """Once. Sets `lost` when it breaks, and raises in the end what broke it."""
        async with asyncio.timeout(timeout_seconds):
            await self._connection.connect()  # type: ignore[no-untyped-call]
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _: lost.set())
        try:
            yield self
        finally:
            reader.cancel()
            (end,) = await asyncio.gather(reader, return_exceptions=True)
            if isinstance(end, Exception):
                raise end

    async def ask(self, *words: Any) -> Any:
        """What Redis answers to a command of bytes, texts and integers. Whoever leaves before that harms nobody else.

        It is sent once: an invalidation that came twice could bring back what another one came between for. Raises
        ResponseError if Redis refuses, ConnectionError if the connection is lost.
        """
        if not self._connection.is_connected:  # redis-py would connect anew
            raise ConnectionError(_LOST)
        packed, answer = pack_command(words), asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        try:
            await self._connection.send_packed_command(packed, check_health=False)
            return await answer
        finally:
            answer.cancel()

    async def _read(self) -> None:
        try:
            while True:
                try:
                    said = await self._connection.read_response(timeout=math.inf, push_request=True)
                except ResponseError as error:
                    said = error
                if isinstance(said, PushNotification) and said[0] != b"subscribe":  # which is an answer
                    self._hear(said)
                else:
                    _tell(self._asked.popleft(), said)
        finally:
            await self._connection.disconnect(nowait=True)
            while self._asked:
                _tell(self._asked.popleft(), ConnectionError(_LOST))


def _tell(who: "asyncio.Future[Any]", answer: Any) -> None:
    if who.done():  # he has not waited
        return
    if isinstance(answer, Exception):
        who.set_exception(answer)
    else:
        who.set_result(answer)
