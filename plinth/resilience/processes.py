"""CPU-bound work in processes of its own: in the event loop it would hold up every other request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar, TypeVarTuple, Unpack

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

ArgsT = TypeVarTuple("ArgsT")
ResultT = TypeVar("ResultT")

# `Processes` limits how many there are. This one never suspends, so that no other call takes a process just started.
_UNLIMITED: Any = nullcontext()


class Processes:
    """Each process is started when it is needed, is used again, and ends after five idle minutes."""

    def __init__(self, max_processes: int) -> None:
        self._limiter = CapacityLimiter(max_processes)
        self._calls: set[asyncio.Task[Any]] = set()
        self._starting: dict[asyncio.Task[Any], bool] = {}  # and whether their results are wanted

    async def run(self, function: Callable[[Unpack[ArgsT]], ResultT], *args: *ArgsT) -> ResultT:
        """Call a function of a module in a process. What it takes, returns and raises is pickled.

        A deadline or a cancellation kills the process.
        """
        call = asyncio.create_task(self._call(function, args))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            self._stop(call)
            if call not in self._starting:
                await asyncio.wait([call])
            raise

    async def _call(self, function: Callable[..., ResultT], args: tuple[Any, ...]) -> ResultT:
        async with self._limiter:
            call: Any = asyncio.current_task()
            self._starting[call] = True
            try:
                await self._prepare()
            finally:
                is_wanted = self._starting.pop(call)
            if not is_wanted:
                raise asyncio.CancelledError
            return await to_process.run_sync(function, *args, cancellable=True, limiter=_UNLIMITED)

    async def _prepare(self) -> None:
        """Start a process, or see that the idle one still runs: it may have been killed, where memory is short say."""
        for _ in range(int(self._limiter.total_tokens)):
            with suppress(BrokenWorkerProcess):
                await to_process.run_sync(bool, limiter=_UNLIMITED)
                return
        await to_process.run_sync(bool, limiter=_UNLIMITED)

    def _stop(self, call: asyncio.Task[Any]) -> None:
        if call in self._starting:
            # anyio would neither kill nor use again what is cancelled while it starts. So it becomes idle.
            self._starting[call] = False
        else:
            call.cancel()

    async def aclose(self) -> None:
        for call in self._calls:
            self._stop(call)
        if self._calls:
            await asyncio.wait([*self._calls])


@asynccontextmanager
async def open_processes(max_processes: int) -> AsyncIterator[Processes]:
    """The processes for calls in the block. Those that are idle end with the event loop."""
    async with aclosing(Processes(max_processes)) as processes:
        yield processes
