"""The invalidation bus: publishes invalidations to all processes, and decides when data in Redis may be trusted.

Cached values may be served only while this process is certain to receive every invalidation, which heartbeats on both
connections show. A process that has lost a connection cannot determine which messages it missed, nor whether its own
last one arrived: others may still serve what it changed. So on its return it publishes a new *epoch*, a generation
on which every entry depends. Since the others are wrong until then, it reconnects at once, and tries continuously.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import monotonic
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from plinth.cache.connection import SharedConnection
from plinth.cache.generations import Generations, Tokens, new_token

log = logging.getLogger(__name__)

EPOCH = "epoch"
"""The name that every entry depends on. Keys and tags are prefixed, so none can be equal to it."""

HEARTBEAT_SECONDS = 0.5
TRUST_SECONDS = 1.5
"""How long Redis is trusted after a heartbeat that it answered was sent. Longer than a command may take."""
GENERATION_SECONDS = 86_400
"""How long Redis keeps a generation, whether it is read or not, which bounds what names occupy that are no longer used.
A name whose generation has expired gets another one, and what depends on it is loaded again."""
MAX_CONCURRENT_COMMANDS = 20
"""More at a time would make the last ones wait for the others as long as a command may take."""
# SET and PUBLISH in one step, so that messages arrive in the order of the writes. A pipeline costs half as much again.
_INVALIDATE = """
for place, key in ipairs(KEYS) do redis.call('SET', key, ARGV[3 + place], 'EX', ARGV[3]) end
return redis.call('PUBLISH', ARGV[1], ARGV[2])
"""
_RECONNECT_SECONDS = 0.05
"""Pause between attempts. Short, because processes that reconnect at different times miss each other's messages."""
FAILURES = (RedisError, OSError, TimeoutError)


class InvalidationBus:
    def __init__(self, redis: Redis, namespace: str, timeout_seconds: float, max_names: int) -> None:
        self._redis = redis
        self.namespace = namespace
        self.timeout_seconds = timeout_seconds
        self.generations = Generations(max_names)
        self.failures = 0
        """Number of commands that failed."""
        self.reachable = False
        """Whether to try to publish; trust comes later, with the first heartbeat."""
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_COMMANDS)  # acquired outside of the command's timeout
        # Two connections: Redis disconnects a subscriber whose output buffer grows, and values may be large.
        self._commands: SharedConnection
        self._messages: SharedConnection
        # Redis delivers messages across its numbered databases, so the channel contains the number.
        self._channel = f"{namespace}:{redis.connection_pool.connection_kwargs.get('db', 0)}:invalidations"
        self._trusted_until = 0.0
        self._epoch_is_due = False
        self._warned = self._unexpected = False
        self._lost = asyncio.Event()
        self._attempted = asyncio.Event()

    @property
    def trusted(self) -> bool:
        """Whether every invalidation is certain to be received."""
        return monotonic() < self._trusted_until

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stay connected to Redis. Yields after the first attempt, whether it succeeded or failed."""
        task = asyncio.create_task(self._run())
        try:
            await self._attempted.wait()
            yield
        finally:
            while not task.done():  # redis-py turns a cancellation while it connects into a ConnectionError
                task.cancel()
                await asyncio.wait([task], timeout=_RECONNECT_SECONDS)

    async def execute(self, *words: Any) -> Any:
        """Return the reply to a command; None if Redis is not trusted, does not reply in time or replies an error."""
        async with self._slots:
            if not self.trusted:
                return None
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    return await self._commands.execute(*words)
            except FAILURES as error:
                self.failures += 1
                if not isinstance(error, ResponseError):  # an error reply, as when Redis is out of memory
                    self._distrust(error)
        return None

    async def invalidate(self, names: Iterable[str]) -> None:
        """Give the names new generations and publish them. If that fails, a new epoch is due when Redis is back."""
        if not self.reachable:
            self._require_epoch()
            return
        tokens = {name: new_token() for name in names}
        self.generations.announce(tokens)
        try:
            async with self._slots:
                await self._publish(tokens)
        except FAILURES as error:
            self.failures += 1
            self._distrust(error)
            self._require_epoch()
        except BaseException:  # cancelled after the transaction was committed
            self._require_epoch()
            raise

    def _distrust(self, error: BaseException) -> None:
        """Send no more commands until the connections are re-established."""
        if self.trusted:
            self._warned = True
            log.warning("Redis is unavailable, so the cache is bypassed until it is back: %r", error)
        self._trusted_until = 0.0
        self._lost.set()

    def _require_epoch(self) -> None:
        """An invalidation may be missing here or elsewhere, so all entries must become invalid."""
        self.reachable = False
        self._epoch_is_due = True
        self._trusted_until = 0.0
        self._lost.set()
        self.generations.clear()

    async def _publish(self, tokens: Tokens) -> None:
        """Raises one of `FAILURES`."""
        keys = [self.generation_key(name) for name in tokens]
        message = self._channel, orjson.dumps(tokens), GENERATION_SECONDS
        async with asyncio.timeout(self.timeout_seconds):
            await self._messages.execute("EVAL", _INVALIDATE, len(keys), *keys, *message, *tokens.values())

    def generation_key(self, name: str) -> str:
        return f"{self.namespace}:generation:{name}"

    async def _run(self) -> None:
        while True:
            self._lost.clear()
            try:
                async with self._connected() as self._commands, self._connected() as self._messages:
                    await self._listen()
            except FAILURES as error:
                self._distrust(error)
                self._require_epoch()
            except Exception:
                if not self._unexpected:  # once, not at every attempt
                    self._unexpected = True
                    log.exception("Redis sent something unexpected, so the cache is bypassed")
                self._require_epoch()
            self._attempted.set()
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _connected(self) -> AbstractAsyncContextManager[SharedConnection]:
        return SharedConnection(self._redis, self._on_message).open(self._lost, self.timeout_seconds)

    async def _listen(self) -> None:
        """Receive messages and send heartbeats until the connection is lost. Raises one of `FAILURES`."""
        async with asyncio.timeout(self.timeout_seconds):
            await self._messages.execute("SUBSCRIBE", self._channel)
        self.generations.clear()  # messages before the subscription were missed
        self._lost.clear()
        self.reachable = True
        if await self._has_restarted() or self._epoch_is_due:
            self._epoch_is_due = False
            await self._publish({EPOCH: new_token()})
        while not self._lost.is_set():
            sent_at = monotonic()
            async with asyncio.timeout(TRUST_SECONDS):
                await self._commands.execute("PING")
                await self._messages.execute("PING")
            if self._lost.is_set():
                break
            if self._warned or self._unexpected:
                self._warned = self._unexpected = False
                log.info("Redis is back, and the cache uses it again")
            self._trusted_until = sent_at + TRUST_SECONDS
            self._attempted.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(sent_at + HEARTBEAT_SECONDS - monotonic()):
                    await self._lost.wait()

    def _on_message(self, received: list[Any]) -> None:
        kind, _, message = received
        if kind == b"message":
            self.generations.apply(orjson.loads(message))

    async def _has_restarted(self) -> bool:
        """Whether the server is another run than before: its data may be older than what was read from it."""
        async with asyncio.timeout(self.timeout_seconds):
            info: bytes = await self._messages.execute("INFO", "server")
            run = info.partition(b"run_id:")[2].partition(b"\r")[0]
            before = await self._messages.execute("SET", f"{self.namespace}:run", run, "GET")
        return before is not None and before != run
