"""The invalidation bus: publishes invalidations to all processes, and decides when data in Redis may be trusted.

Cached values may be served only while this process is certain to receive every invalidation, which heartbeats on both
connections show. A process that has lost a connection may have missed messages, so it forgets all generations, and
reads them again when it is back, after it has published what it could not. The others keep what they have, unless the
server is another one than before: the epoch names the run that it was made on, and with another no entry is current.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, RedisError, ResponseError

from plinth.cache import scripts
from plinth.cache.connection import SharedConnection
from plinth.cache.generations import Generations, Unpublished, new_token

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS, TRUST_SECONDS = 0.5, 1.5
"""How long Redis is trusted after a heartbeat that it answered was sent. Longer than a command may take."""
LISTENING_MILLISECONDS = 10_000  # others publish so long after the last heartbeat of a process that listens
MAX_CONCURRENT_COMMANDS = 20  # more would make the last ones wait for the others as long as a command may take
_RECONNECT_SECONDS = 0.05  # short, because other processes serve what this one could not invalidate
FAILURES = (RedisError, OSError, TimeoutError)


class InvalidationBus:
    def __init__(
        self, redis: Redis, namespace: str, timeout_seconds: float, max_name_bytes: int, *, listens: bool = False
    ) -> None:
        """`listens` is whether this process must receive all invalidations even if nothing is cached."""
        self._redis = redis
        self.keys = scripts.Keys(namespace)
        self.timeout_seconds = timeout_seconds
        self.generations = Generations(max_name_bytes)
        self.failures = 0
        self.caches = False
        """Whether a value was cached by this process or, as far as it can see, by another."""
        self.run = ""
        """Of the server: another one may have older data than what was read before."""
        self._listens = listens
        self._reachable = False
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_COMMANDS)  # acquired outside of the command's timeout
        # Two connections: Redis disconnects a subscriber whose output buffer grows, and values may be large.
        self._commands: SharedConnection
        self._messages: SharedConnection
        # Redis delivers messages across its numbered databases, so the channel contains the number.
        self._channel = f"{namespace}:{redis.connection_pool.connection_kwargs.get('db', 0)}:invalidations"
        self._trusted_until = 0.0
        self._unpublished = Unpublished()
        self._warned = False
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
            try:
                if self.trusted:
                    return await self._commands.execute(*words, timeout_seconds=self.timeout_seconds)
            except FAILURES as error:
                self.failures += 1
                if not isinstance(error, ResponseError):  # an error reply, as when Redis is out of memory
                    self._distrust(error)

    def post(self, *words: Any) -> None:
        """Send a command if Redis is trusted, and do not wait for the reply."""
        if self.trusted:
            self._commands.post(*words)

    async def invalidate(self, names: Sequence[str]) -> None:
        """Delete the generations of the names for all processes. What fails is done when Redis is back."""
        self.generations.forget(names)
        if not self._reachable:
            self._unpublished.add(names)
            return
        try:
            async with self._slots:
                await self._publish(names)
        except FAILURES as error:
            self.failures += 1
            self._unpublished.add(names)
            self._distrust(error)
        except BaseException:  # cancelled after the transaction was committed
            self._unpublished.add(names)
            self._disconnect()
            raise
        # Again: a read that was sent meanwhile may have been answered before Redis had deleted them.
        self.generations.forget(names)

    def _distrust(self, error: BaseException) -> None:
        if self.trusted:
            self._warned = True
            log.warning("Redis is unavailable, so the cache is bypassed until it is back: %r", error)
        self._disconnect()

    def _disconnect(self) -> None:
        """Serve nothing, and send no more commands, until the connections are re-established."""
        self._reachable, self._trusted_until = False, 0.0
        self._lost.set()

    async def _publish(self, names: Sequence[str] | None) -> None:
        """Invalidate the names, or everything. Raises one of `FAILURES`."""
        script = scripts.INVALIDATE if names is not None else scripts.INVALIDATE_ALL
        keys = self.keys.generations(names or ())
        always = int(self.caches)  # else only if there is an epoch: others have cached something
        words = "EVAL", script, len(keys), *keys, always, self._channel, orjson.dumps(names)
        await self._messages.execute(*words, timeout_seconds=self.timeout_seconds)

    async def _publish_what_is_owed(self) -> None:
        while self._unpublished:
            names = self._unpublished.take()
            try:
                await self._publish(names)
            except BaseException:
                self._unpublished.add(names)
                raise

    async def _run(self) -> None:
        while True:
            self._lost.clear()
            try:
                one, other = (SharedConnection(self._redis, self._on_message) for _ in range(2))
                opened = [each.open(self._lost, self.timeout_seconds) for each in (one, other)]
                async with opened[0] as self._commands, opened[1] as self._messages:
                    await self._listen()
            except FAILURES as error:
                self._distrust(error)
            except Exception:
                if not self._warned:  # once, not at every attempt
                    self._warned = True
                    log.exception("Redis sent something unexpected, so the cache is bypassed")
            self._disconnect()
            self.generations.clear()
            self._attempted.set()
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        """Receive messages and send heartbeats until the connection is lost. Raises one of `FAILURES`."""
        async with asyncio.timeout(self.timeout_seconds):
            await self._messages.execute("SUBSCRIBE", self._channel)
            self.run, other = [await each.run_id() for each in (self._messages, self._commands)]
        if self.run != other:
            raise ConnectionError("The two connections lead to different servers")
        self.generations.clear()  # messages before the subscription were missed
        await self._publish_what_is_owed()
        self._lost.clear()
        self._reachable = True
        # It reads the epoch, which is not evicted while it is read so often. A process that listens also keeps it.
        epoch_key = self.keys.generations(())
        keep = "EVAL", scripts.KEEP_EPOCH, 1, *epoch_key, new_token(), self.run, LISTENING_MILLISECONDS
        while not self._lost.is_set():
            sent_at = monotonic()
            async with asyncio.timeout(TRUST_SECONDS):
                epoch = await self._commands.execute(*(keep if self._listens else ("GET", *epoch_key)))
                # At once: a read that is sent meanwhile creates the epoch where there was none.
                self.generations.observe_epoch(epoch.decode() if epoch else None)
                await self._messages.execute("PING")
            if self._lost.is_set():
                break
            self.caches |= epoch is not None
            if self._warned:
                self._warned = False
                log.info("Redis is back, and the cache uses it again")
            self._trusted_until = sent_at + TRUST_SECONDS
            self._attempted.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(sent_at + HEARTBEAT_SECONDS - monotonic()):
                    await self._lost.wait()

    def _on_message(self, received: list[Any]) -> None:
        kind, _, message = received
        if kind == b"message":
            self.caches = True
            names = orjson.loads(message)
            self.generations.clear() if names is None else self.generations.forget(names)
