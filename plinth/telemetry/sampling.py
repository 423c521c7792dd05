"""What a process reports of itself each second: its event loop, its memory, its collections of garbage."""

import asyncio
import gc
import platform
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from plinth.telemetry import metrics
from plinth.telemetry.counting import request_metrics

SECONDS = 1.0
MEMORY = Path("/proc/self/statm")  # of Linux; elsewhere the metric is missing


@asynccontextmanager
async def sampled(kind: str, version: str, cores: int, *samples: Callable[[], None]) -> AsyncIterator[None]:
    """For the time of the block, set the metrics of this process each second, and call `samples`, which set others.

    `kind` is `web` or `worker`, `version` that of the service, and `cores` what it may use of the host.
    """
    metrics.BUILD.labels(version, platform.python_version()).set(1)
    metrics.PROCESSES.labels(kind).set(1)
    metrics.CPU_CORES.set(cores)
    process = _Process()
    task = asyncio.create_task(_sample([process.sample, *samples]))
    gc.callbacks.append(process.on_collection)
    try:
        yield
    finally:
        gc.callbacks.remove(process.on_collection)
        task.cancel()
        await asyncio.wait([task])
        process.sample()
        metrics.PROCESSES.labels(kind).set(0)


async def _sample(samples: list[Callable[[], None]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        for sample in samples:
            sample()
        due = loop.time() + SECONDS
        await asyncio.sleep(SECONDS)
        metrics.LOOP_LAG_SECONDS.observe(max(0.0, loop.time() - due))


class _Process:
    def __init__(self) -> None:
        self._cpu_seconds = time.process_time()
        self._collections: deque[tuple[int, float]] = deque()
        self._began_at = 0.0

    def sample(self) -> None:
        cpu_seconds = time.process_time()
        metrics.CPU_SECONDS.inc(cpu_seconds - self._cpu_seconds)
        self._cpu_seconds = cpu_seconds
        metrics.IN_PROGRESS.set(request_metrics.in_progress)
        with suppress(FileNotFoundError):
            metrics.MEMORY_BYTES.set(int(MEMORY.read_text().split()[1]) * resource.getpagesize())
        while self._collections:
            generation, seconds = self._collections.popleft()
            metrics.GC_PAUSE_SECONDS.labels(generation).observe(seconds)

    def on_collection(self, phase: str, info: dict[str, int]) -> None:
        """Only remember it: a collection may begin while a metric is locked, and `observe` would wait forever."""
        now = time.perf_counter()
        if phase == "start":
            self._began_at = now
        else:
            self._collections.append((info["generation"], now - self._began_at))
