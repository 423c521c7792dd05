"""Several processes as one command: those of a worker, or a server with a worker beside it.

Signals are passed on. A process that ends by itself is started again, unless it is the one that the command stands for.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from plinth.telemetry.scraping import fold_dead

log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
STOP_SIGNALS = signal.SIGTERM, signal.SIGINT
CODE = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("app", "plinth")]
GRACE_BEFORE_RELOAD = {"JOB_GRACE_SECONDS": "2"}  # as `app dev` has for requests


class Supervisor:
    def __init__(self, workers: Sequence[Sequence[str]], server: Sequence[str] | None = None) -> None:
        """Command lines: of processes that are started again, and of one whose end is that of all."""
        self._workers = workers
        self._server = server
        self._processes: dict[Process, bool] = {}
        self._is_stopping = False

    async def run(self) -> int:
        """Run until a stop signal arrives or the server ends, and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        workers = [loop.create_task(self._keep(command)) for command in self._workers]
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        code = 0
        if self._server is not None:
            code = await self._run(self._server, is_server=True)
            self._stop(signal.SIGTERM)
        await asyncio.gather(*workers)
        return code

    async def _keep(self, command: Sequence[str]) -> None:
        while not self._is_stopping:
            code = await self._run(command)
            if not self._is_stopping:
                log.warning("A worker process ended with exit code %d; another is started", code)
                await asyncio.sleep(RESTART_SECONDS)

    async def _run(self, command: Sequence[str], is_server: bool = False) -> int:
        # A session of its own: a terminal sends Ctrl-C to this process alone, which passes it on.
        process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
        self._processes[process] = is_server
        if self._is_stopping:  # the signal arrived in between
            process.terminate()
        try:
            return await process.wait()
        finally:
            del self._processes[process]
            fold_dead()

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        for process in self._processes:
            with suppress(ProcessLookupError):  # it has just ended
                process.send_signal(number)

    def _reload(self) -> None:
        """The server reloads without a gap; a worker finishes its jobs, and another is started."""
        for process, is_server in self._processes.items() if not self._is_stopping else ():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP if is_server else signal.SIGTERM)


def run_with_reload(command: Sequence[str]) -> None:
    """Run a process of development, which is replaced when the code changes, by the supervisor of `app dev`."""
    from uvicorn import Config
    from uvicorn.supervisors import ChangeReload

    config = Config("", reload=True, reload_dirs=CODE, log_config=None)
    ChangeReload(config, target=partial(_become, command), sockets=[]).run()


def _become(command: Sequence[str], sockets: object) -> None:
    os.execve(command[0], [*command], os.environ | GRACE_BEFORE_RELOAD)


async def parent_ended() -> None:
    """Return once the process that started this one is gone, however it ended."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(1)


def worker_commands(processes: int) -> list[list[str]]:
    """The command lines of the processes of a worker, each of which stops if its supervisor is gone."""
    return [[sys.executable, "-m", "app", "worker", "--number", str(number)] for number in range(processes)]
