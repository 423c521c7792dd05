"""`python -m tests.faults.fault_worker`: the worker beside tests/faults/fault_app.py."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from sqlalchemy import text

from plinth.database import Database, open_database
from plinth.jobs import Mailer, Run, Worker, once, open_mailer, task
from plinth.jobs.status import StatusFiles
from plinth.settings import Settings, load_settings
from plinth.telemetry import configure_logging
from tests.faults.fault_app import EFFECT, MAIL, Write

EFFECT_ONCE = text("INSERT INTO fault_effects VALUES (:number, :job)")


@dataclass
class State:
    database: Database
    mailer: Mailer


# The longest fault may take more attempts than a service would allow; the time between two is shorter instead.
@task(EFFECT, attempts=1000, backoff_seconds=0.1, timeout_seconds=5)
async def effect(run: Run[State], data: Write) -> None:
    async with run.state.database.sessions.begin() as session:
        if await once(session, run):
            await session.execute(EFFECT_ONCE, {"number": data.id, "job": run.id})


@task(MAIL, attempts=1000, backoff_seconds=0.1, timeout_seconds=5)
async def mail(run: Run[State], data: Write) -> None:
    await run.state.mailer.send("mail", to="reader@example.com", message_id=run.id, values=data)


async def work(settings: Settings, templates: Path) -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[State]:
        async with (
            open_database(settings.database, "worker") as database,
            open_mailer(settings.mail, templates) as mailer,
        ):
            yield State(database, mailer)

    worker = Worker(settings.job, settings.database, (effect, mail), (), lifespan)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run(StatusFiles(settings.job.status_folder, 0))


if __name__ == "__main__":
    loaded = load_settings(Settings)
    configure_logging(loaded.log_level, loaded.log_format, "worker")
    with TemporaryDirectory() as folder:
        Path(folder, "mail.txt").write_text("Subject: {{ id }}\n\nWritten.\n")
        uvloop.run(work(loaded, Path(folder)))
