"""The CLI of a service whose only task waits for a file. It stands in for `app`, which supervisors start."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel

from plinth.cli import create_cli
from plinth.jobs import Job, Run, Worker, status, task
from plinth.jobs.processes import Supervisor, worker_commands
from plinth.settings import Settings, load_settings

SERVER_EXIT_CODE = 7


class Hold(BaseModel):
    until: Path


@task(Job("hold", Hold), attempts=10)
async def hold(run: Run[None], payload: Hold) -> None:
    print(f"attempt {run.attempt} in process {os.getpid()}", flush=True)  # noqa: T201
    while not payload.until.exists():  # noqa: ASYNC110 - it is created by another process
        await asyncio.sleep(0.01)


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    yield


def create_worker(settings: Settings) -> Worker[None]:
    status.TOUCH_SECONDS = 0.05
    return Worker(settings.job, settings.database, [hold], [], lifespan)


cli = create_cli(lambda: load_settings(Settings), "", worker="tests.plinth.jobs.service:create_worker")


@cli.command()
def server() -> None:
    """What a supervisor sees of a server: it reloads at SIGHUP and ends at SIGTERM, with an exit code of its own."""
    signals = {signal.SIGHUP, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print(f"server {os.getpid()}", flush=True)  # noqa: T201
    while signal.sigwait(signals) == signal.SIGHUP:
        print("server reloads", flush=True)  # noqa: T201
    raise SystemExit(SERVER_EXIT_CODE)


@cli.command()
def both() -> None:
    """As `serve --with-worker`, with the server above."""
    raise SystemExit(asyncio.run(Supervisor(worker_commands(1), [sys.executable, "-m", "app", "server"]).run()))


def main() -> None:
    sys.argv[0] = "app"
    cli()
