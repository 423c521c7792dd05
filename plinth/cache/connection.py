"""Connections to Redis: redis-py's client for general use, and a multiplexed connection for the cache.

redis-py's client lends a connection to one command until its reply has arrived. Under load each worker then needs many
connections, and every command pays for the pool. `SharedConnection` sends all commands over one connection and matches
the replies by their order, which Redis guarantees. Published messages arrive on it in between. A command costs about
half of what it costs through the client.

This is the module that looks inside redis-py. It uses the connection class and the arguments that the client's pool
would use (`connection_class`, `connection_kwargs`), and `connect`, `send_packed_command`, `read_response` and
`disconnect` of a connection, which are public names without a promise of stability. Hence redis-py is pinned below its
next minor version. The module fails closed: any exception ends the connection, and without one the cache serves nothing
and requests read the database. Tests compare its replies with those of the client, and break its assumptions.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from hiredis import PushNotification, pack_command
from opentelemetry import trace
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError

from plinth.cache.settings import RedisSettings

TRACER = trace.get_tracer("plinth.cache")
_OVERRIDES = {
    "socket_timeout": None,  # each caller of `execute` sets its own
    "protocol": 3,  # on a RESP2 connection that has subscribed, no other commands can be sent
    "maint_notifications_config": None,  # redis-py would reconnect by itself, and messages would be missed unnoticed
}
_LOST = "The connection to Redis was lost"
_POST_SECONDS = 0.005
_MAX_UNSENT = 100
_LONGEST_SECONDS = 3600.0


@asynccontextmanager
async def open_redis(settings: RedisSettings) -> AsyncIterator[Redis | None]:
    """Open the process's client; yields None where REDIS_URL is not set. It connects when it sends a command."""
    if settings.url is None:
        yield None
        return
    # redis-py's default pool raises when all connections are in use; this one waits for one to be returned.
    pool = BlockingConnectionPool.from_url(
        settings.url.get_secret_value(),
        max_connections=settings.max_connections,
        timeout=settings.timeout_seconds,
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        # redis-py retries by default, which multiplies the longest wait by the number of attempts.
        retry=Retry(NoBackoff(), 0, supported_errors=()),
    )
    async with Redis.from_pool(pool) as redis:
        yield redis


class SharedConnection:
    """One connection for concurrent commands and subscriptions. Use `open` once; it never reconnects.

    What is sent in one turn of the event loop leaves in one packet: the system call costs more than the command.
    """

    def __init__(self, redis: Redis, on_message: Callable[[list[Any]], None]) -> None:
        """Connects to the server of `redis`. `on_message` is called with each published message."""
        pool = redis.connection_pool
        self._connection = pool.connection_class(**pool.connection_kwargs | _OVERRIDES)
        self._on_message = on_message
        self._unsent: list[bytes] = []
        self._send = asyncio.Event()
        self._pending: deque[asyncio.Future[Any] | None] = deque()

    @asynccontextmanager
    async def open(self, lost: asyncio.Event, timeout_seconds: float) -> AsyncIterator[Self]:
        """Connect within `timeout_seconds`. Sets `lost` when the connection ends, and raises its error on exit."""
        async with asyncio.timeout(timeout_seconds):
            await self._connection.connect()  # type: ignore[no-untyped-call]
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        reader.add_done_callback(lambda _: lost.set())
        writer.add_done_callback(lambda _: reader.cancel())
        try:
            yield self
        finally:
            writer.cancel()
            reader.cancel()
            for end in await asyncio.gather(reader, writer, return_exceptions=True):
                if isinstance(end, Exception):
                    raise end

    async def execute(self, *words: Any, timeout_seconds: float = _LONGEST_SECONDS) -> Any:
        """Send a command of bytes, strings and integers, and return the reply.

        A cancelled caller does not affect the other callers. A command is never sent twice. Raises ResponseError for an
        error reply, ConnectionError if the connection is lost before the reply arrives, and TimeoutError.
        """
        if not trace.get_current_span().is_recording():
            return await self._execute(words, timeout_seconds)
        # OpenTelemetry instruments redis-py's client alone.
        with TRACER.start_as_current_span(words[0], kind=trace.SpanKind.CLIENT, attributes={"db.system.name": "redis"}):
            return await self._execute(words, timeout_seconds)

    async def _execute(self, words: tuple[Any, ...], timeout_seconds: float) -> Any:
        if not self._connection.is_connected:
            raise ConnectionError(_LOST)
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        self._unsent.append(pack_command(words))
        self._pending.append(reply)
        self._send.set()
        # A fifth of the cost of `asyncio.timeout`.
        timer = (
            loop.call_later(timeout_seconds, _resolve, reply, TimeoutError()) if timeout_seconds < math.inf else None
        )
        try:
            return await reply
        finally:
            reply.cancel()
            if timer:
                timer.cancel()

    async def run_id(self) -> str:
        """Identify the run of the server."""
        info: bytes = await self.execute("INFO", "server")
        return info.partition(b"run_id:")[2].partition(b"\r")[0].decode()

    def post(self, *words: Any) -> None:
        """Send a command whose reply is not needed, with the next one or after some milliseconds.

        It is dropped while many are waiting to be sent.
        """
        if self._connection.is_connected and len(self._unsent) < _MAX_UNSENT:
            if not self._unsent:
                asyncio.get_running_loop().call_later(_POST_SECONDS, self._send.set)
            self._unsent.append(pack_command(words))
            self._pending.append(None)

    async def _write(self) -> None:
        while True:
            await self._send.wait()
            self._send.clear()
            packed, self._unsent = b"".join(self._unsent), []
            if packed and self._connection.is_connected:  # send_packed_command would reconnect
                await self._connection.send_packed_command(packed, check_health=False)

    async def _read(self) -> None:
        try:
            while True:
                try:
                    received = await self._connection.read_response(timeout=math.inf, push_request=True)
                except ResponseError as error:
                    received = error
                # In RESP3 the confirmation of SUBSCRIBE is a push, too, and is the reply to that command.
                if isinstance(received, PushNotification) and received[0] != b"subscribe":
                    self._on_message(received)
                else:
                    _resolve(self._pending.popleft(), received)
        finally:
            await self._connection.disconnect(nowait=True)
            while self._pending:
                _resolve(self._pending.popleft(), ConnectionError(_LOST))


def _resolve(pending: "asyncio.Future[Any] | None", received: Any) -> None:
    if pending is None or pending.done():  # no caller waits, or it was cancelled
        return
    if isinstance(received, Exception):
        pending.set_exception(received)
    else:
        pending.set_result(received)
