"""Whether what Redis says may be believed: only while a connection of ours has heard of every invalidation.

A process that loses sight of Redis for a moment cannot know what was written meanwhile, by itself or by others, whose
invalidations did not arrive. So on its return it first declares a new epoch, which every entry depends on. Until then,
those who never lost sight do not know what it wrote: it tries to return at once, and again and again.
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
from plinth.cache.store import Generations, Names, new_generation

log = logging.getLogger(__name__)

EPOCH = "epoch"
"""The name that every entry has, and nobody else can give: others' have a prefix."""

BEAT_SECONDS = 0.5
TRUST_SECONDS = 1.5
"""So long after a beat was sent that Redis has answered, it is trusted. Longer than the answer may take."""
GENERATION_SECONDS = 86_400
"""A generation lives so long, whether it is asked for or not: then the next read makes another one, and what depended
on it is loaded anew. So Redis also holds those of names that nobody asks for any more, for a day."""
AT_ONCE = 20
"""So many commands are under way at most, or the last ones would wait for the others as long as Redis may take."""
# At once, so that processes hear of changes in the order in which they happened. A pipeline costs half as much again.
_ANNOUNCE = """
for place, key in ipairs(KEYS) do redis.call('SET', key, ARGV[3 + place], 'EX', ARGV[3]) end
return redis.call('PUBLISH', ARGV[1], ARGV[2])
"""
_PAUSE_SECONDS = 0.05  # between attempts: who is back first does not hear of what others write until they are back, too
FAILURES = (RedisError, OSError, TimeoutError)


class Link:
    def __init__(self, redis: Redis, namespace: str, timeout_seconds: float, max_names: int) -> None:
        self._redis = redis
        self.namespace = namespace
        self.timeout_seconds = timeout_seconds
        self.names = Names(max_names)
        self.failures = 0
        """Commands that were not answered, so far."""
        self.reachable = False
        """Invalidations are worth a try: they are, before anything is trusted."""
        self._slots = asyncio.Semaphore(AT_ONCE)  # to wait for one is not to wait for Redis
        # What is read may be large, and Redis drops a subscriber to whom it owes too much.
        self._answers: SharedConnection
        self._messages: SharedConnection
        # Redis tells what is published to whoever listens, in whichever of its databases.
        self._channel = f"{namespace}:{redis.connection_pool.connection_kwargs.get('db', 0)}:invalidations"
        self._trusted_until = 0.0
        self._missed = False
        self._warned = False
        self._lost = asyncio.Event()
        self._tried = asyncio.Event()

    @property
    def trusted(self) -> bool:
        return monotonic() < self._trusted_until

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Begins when Redis is trusted, or has failed once."""
        task = asyncio.create_task(self._run())
        try:
            await self._tried.wait()
            yield
        finally:
            while not task.done():  # redis-py takes a cancellation that meets it connecting for a lost connection
                task.cancel()
                await asyncio.wait([task], timeout=_PAUSE_SECONDS)

    async def ask(self, *words: Any) -> Any:
        """What Redis answers; None where it is not trusted, does not answer in time, or refuses."""
        async with self._slots:
            if not self.trusted:
                return None
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    return await self._answers.ask(*words)
            except FAILURES as error:
                self.failures += 1
                if not isinstance(error, ResponseError):  # then it is there, and has no memory left, say
                    self._fail(error)
        return None

    async def invalidate(self, names: Iterable[str]) -> None:
        """Give the names new generations, and tell every process; if that fails, all names get some on our return."""
        if not self.reachable:
            self._miss()
            return
        generations = {name: new_generation() for name in names}
        self.names.tell(generations)
        try:
            async with self._slots:
                await self._announce(generations)
        except FAILURES as error:
            self.failures += 1
            self._fail(error)
            self._miss()
        except BaseException:  # cancelled, with the transaction committed
            self._miss()
            raise

    def _fail(self, error: BaseException) -> None:
        """What was asked was not answered: ask nothing more until there is a listener again."""
        if self.trusted:
            self._warned = True
            log.warning("The cache goes on without Redis: %r", error)
        self._trusted_until = 0.0
        self._lost.set()

    def _miss(self) -> None:
        """Somebody does not know of an invalidation: only a new epoch helps."""
        self.reachable = False
        self._missed = True
        self._trusted_until = 0.0
        self._lost.set()
        self.names.forget()

    async def _announce(self, generations: Generations) -> None:
        """Raises what `FAILURES` lists."""
        keys = [self.generation_key(name) for name in generations]
        told = self._channel, orjson.dumps(generations), GENERATION_SECONDS
        async with asyncio.timeout(self.timeout_seconds):
            await self._messages.ask("EVAL", _ANNOUNCE, len(keys), *keys, *told, *generations.values())

    def generation_key(self, name: str) -> str:
        return f"{self.namespace}:generation:{name}"

    async def _run(self) -> None:
        while True:
            self._lost.clear()
            try:
                async with self._connected() as self._answers, self._connected() as self._messages:
                    await self._listen()
            except FAILURES as error:
                self._fail(error)
                self._miss()
            except Exception:
                log.exception("What was heard from Redis could not be understood")
                self._miss()
            self._tried.set()
            await asyncio.sleep(_PAUSE_SECONDS)

    def _connected(self) -> AbstractAsyncContextManager[SharedConnection]:
        return SharedConnection(self._redis, self._hear).opened(self._lost, self.timeout_seconds)

    async def _listen(self) -> None:
        """Until it is lost. Raises what `FAILURES` lists."""
        async with asyncio.timeout(self.timeout_seconds):
            await self._messages.ask("SUBSCRIBE", self._channel)
        self.names.forget()  # nobody listened until now
        self._lost.clear()
        self.reachable = True
        if await self._has_restarted() or self._missed:
            self._missed = False
            await self._announce({EPOCH: new_generation()})
        while not self._lost.is_set():
            sent_at = monotonic()
            async with asyncio.timeout(TRUST_SECONDS):
                await self._answers.ask("PING")
                await self._messages.ask("PING")
            if self._lost.is_set():
                break
            if self._warned:
                self._warned = False
                log.info("The cache uses Redis again")
            self._trusted_until = sent_at + TRUST_SECONDS
            self._tried.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(sent_at + BEAT_SECONDS - monotonic()):
                    await self._lost.wait()

    def _hear(self, said: list[Any]) -> None:
        kind, _, message = said
        if kind == b"message":
            self.names.hear(orjson.loads(message))

    async def _has_restarted(self) -> bool:
        """With data that may be older than what we have seen of it."""
        async with asyncio.timeout(self.timeout_seconds):
            info: bytes = await self._messages.ask("INFO", "server")
            run = info.partition(b"run_id:")[2].partition(b"\r")[0]
            before = await self._messages.ask("SET", f"{self.namespace}:run", run, "GET")
        return before is not None and before != run
