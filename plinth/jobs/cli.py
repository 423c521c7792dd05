"""`app jobs`: what people do with jobs by hand. `app worker`: the processes that run them."""

import asyncio
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import typer
import uvloop

from plinth.database.connections import driver_arguments
from plinth.database.errors import DRIVER_ERRORS
from plinth.jobs.maintenance import NUMBERS, QueueNumbers
from plinth.jobs.processes import STOP_SIGNALS, Supervisor, parent_ended, run_with_reload, worker_commands
from plinth.jobs.settings import JobSettings
from plinth.jobs.status import StatusFiles
from plinth.jobs.tables import STATES
from plinth.jobs.worker import Worker
from plinth.serving.metrics_folder import shared_folder
from plinth.telemetry.scraping import serve_metrics

LIST = """
    SELECT id, state, name, queue, attempts, percent, to_char(run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SSZ'),
        coalesce(reason, '')
    FROM plinth_jobs
    WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR name = $3)
    ORDER BY created_at DESC LIMIT $4
"""
RETRY = """
    UPDATE plinth_jobs SET state = 'queued', attempts = 0, percent = 0, run_at = now(), reason = NULL,
        finished_at = NULL, cancel_requested_at = NULL
    WHERE id = $1 AND state IN ('dead', 'cancelled')
    RETURNING pg_notify('plinth_jobs', queue)
"""
CANCEL = """
    UPDATE plinth_jobs SET cancel_requested_at = now(),
        state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
        finished_at = CASE WHEN state = 'queued' THEN now() END
    WHERE id = $1 AND state IN ('queued', 'running')
    RETURNING state
"""

jobs = typer.Typer(help="List, show, retry and cancel jobs.", no_args_is_help=True)
Id = Annotated[UUID, typer.Argument(help="The id of the job.", show_default=False)]


def _run(context: typer.Context, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(**driver_arguments(context.obj.database.direct, "jobs"))
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    try:
        return asyncio.run(fetch())
    except asyncpg.UniqueViolationError:
        sys.exit("Another job with its key is queued or running already.")
    except asyncpg.DataError:
        sys.exit("No name has these characters; they cannot be stored.")
    except DRIVER_ERRORS as error:
        sys.exit(f"The queue cannot be reached: {error}")


@jobs.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.")] = None,
    queue: Annotated[str | None, typer.Option(help="Name of a queue.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of a job, as app/jobs.py declares it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the newest first.")] = 50,
) -> None:
    """List jobs, the newest first.

    Example: app jobs list --state dead
    """
    if state not in {None, *STATES}:
        sys.exit(f"--state is one of {', '.join(STATES)}.")
    for id, *columns, reason in _run(context, LIST, state, queue, name, limit):
        print(id, "  ".join(str(column).ljust(9) for column in columns), " ".join(reason.split())[:80])


@jobs.command()
def show(context: typer.Context, id: Id) -> None:
    """Show all of a job, its payload included.

    Example: app jobs show 7f0c6a52-93a5-4d2f-9d0e-2d1a5c6f8b11
    """
    row = _one(_run(context, "SELECT * FROM plinth_jobs WHERE id = $1", id), f"There is no job {id}.")
    for name, value in row.items():
        print(f"{name:20}{'' if value is None else value}")


@jobs.command()
def retry(context: typer.Context, id: Id) -> None:
    """Queue a dead or cancelled job again, with all its attempts.

    Example: app jobs retry 7f0c6a52-93a5-4d2f-9d0e-2d1a5c6f8b11
    """
    _one(_run(context, RETRY, id), f"No job {id} is dead or cancelled.")
    print(f"Job {id} is queued again.")


@jobs.command()
def cancel(context: typer.Context, id: Id) -> None:
    """Cancel a job. One that runs is interrupted within seconds; what it has committed stays.

    Example: app jobs cancel 7f0c6a52-93a5-4d2f-9d0e-2d1a5c6f8b11
    """
    [state] = _one(_run(context, CANCEL, id), f"No job {id} is queued or running.").values()
    print(f"Job {id} is {'cancelled' if state == 'cancelled' else 'being interrupted'}.")


@jobs.command()
def stats(context: typer.Context) -> None:
    """Show the numbers of each queue.

    Example: app jobs stats
    """
    sql, values = NUMBERS.bind({})
    for row in [QueueNumbers.__slots__, *_run(context, sql, *values)]:
        print("  ".join(str("" if value is None else value).ljust(9) for value in row))


def add_commands(cli: typer.Typer, place: str, check_start: Callable[[Any], None]) -> None:
    """Add `worker`, which the function at `place` makes of the settings, and `jobs` to the commands of a service."""

    @cli.command()
    def worker(
        context: typer.Context,
        reload: Annotated[bool, typer.Option("--reload", help="Start again when the code changes.")] = False,
        number: Annotated[int | None, typer.Option(min=0, hidden=True, help="Which of several processes.")] = None,
    ) -> None:
        """Run jobs, in as many processes as JOB_PROCESSES says.

        Example: JOB_PROCESSES=2 app worker
        """
        settings: JobSettings = context.obj.job
        try:
            status = StatusFiles(settings.status_folder, number or 0)
        except OSError as error:
            sys.exit(f"JOB_STATUS_FOLDER cannot be written: {error}")
        if number is None:
            check_start(context.obj)
        if reload:
            run_with_reload(worker_commands(1)[0])
            return
        if number is None and settings.processes > 1:
            with shared_folder():
                serve_metrics(context.obj.host, context.obj.metrics.port)
                raise SystemExit(asyncio.run(Supervisor(worker_commands(settings.processes)).run()))
        if number is None:
            serve_metrics(context.obj.host, context.obj.metrics.port)
        module, _, name = place.partition(":")
        create_worker: Callable[[Any], Worker[Any]] = getattr(import_module(module), name)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(create_worker(context.obj), status, number is not None))

    cli.add_typer(jobs, name="jobs")


async def _work(worker: Worker[Any], status: StatusFiles, is_supervised: bool) -> None:
    loop = asyncio.get_running_loop()
    for stop_signal in STOP_SIGNALS:
        loop.add_signal_handler(stop_signal, worker.stop)
    watch = loop.create_task(_stop_without_parent(worker)) if is_supervised else None
    await worker.run(status)
    if watch is not None:
        watch.cancel()


async def _stop_without_parent(worker: Worker[Any]) -> None:
    await parent_ended()
    worker.stop()


def _one(rows: list[asyncpg.Record], otherwise: str) -> asyncpg.Record:
    if not rows:
        sys.exit(otherwise)
    return rows[0]
