"""The commands of every service: serve, dev, check, doctor, migrate, drain, profile, openapi. A service adds its own.

Commands import what they need when they run, so that wrong settings are reported before anything slow is loaded.
"""

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import orjson
import typer

from plinth.doctor.cli import add_command as add_doctor
from plinth.errors import ConfigurationError, UnavailableError
from plinth.settings import Settings
from plinth.telemetry import configure_logging
from plinth.telemetry.cli import profile
from plinth.variables import unknown_variables

__all__ = ["create_cli", "fail", "progress"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")
ROOT = Path(__file__).resolve().parent.parent
TOOLS = {
    "new": "Add a resource: `new resource invoices number:str:unique total:money`.",
    "remove": "Take a part out of the service: `remove example`, `accounts` or `jobs`.",
}
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def create_cli(get_settings: Callable[[], Settings], application: str, worker: str | None = None) -> typer.Typer:
    """Build the command-line interface of the service whose ASGI application is at `application` ("app.main:app").

    `worker` is where the function is that makes its worker of the settings ("app.main:create_worker"), if it has jobs.
    Every command gets the settings as `context.obj`; faults in them end the command with exit code 1.
    """
    cli = typer.Typer(help="Run and maintain the service.", no_args_is_help=True, pretty_exceptions_enable=False)

    @cli.callback()
    def read_settings(context: typer.Context) -> None:
        if context.invoked_subcommand in {*TOOLS, "doctor"}:
            return  # the tools need no settings, and the doctor reports what is wrong with them
        try:
            context.obj = get_settings()
        except ConfigurationError as error:
            fail(str(error))

    @cli.command()
    def check(
        context: typer.Context,
        lenient: Annotated[bool, typer.Option(help="Only warn of unknown variables, as a start does.")] = False,
    ) -> None:
        """Wait for the database, and fail unless the service can start on it and knows all variables named like its.

        Example: app check --lenient
        """
        _check_start(context.obj)
        if not lenient and (unknown := unknown_variables(type(context.obj))):
            fail("\n".join(unknown))

    @cli.command()
    def dev(context: typer.Context) -> None:
        """Serve with one Uvicorn process that reloads when the code changes.

        Example: PORT=8001 app dev
        """
        _check_start(context.obj)
        from plinth.serving.reload import serve_with_reload

        folders = [ROOT / application.partition(".")[0], ROOT / "plinth"]
        serve_with_reload(application, context.obj.host, context.obj.port, folders)

    @cli.command()
    def openapi() -> None:
        """Print the API's OpenAPI document.

        Example: app openapi > openapi.json
        """
        from plinth.http.docs import openapi as document_of

        module, _, name = application.partition(":")
        document = document_of(getattr(import_module(module), name))
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")

    if worker is not None:
        from plinth.jobs.cli import add_commands

        add_commands(cli, worker, _check_start)
    add_doctor(cli, get_settings, has_jobs=worker is not None)
    for name, sentence in TOOLS.items():
        cli.command(name, help=sentence, context_settings=PASSED_ON)(_tool)
    for command in (serve, drain, migrate, profile):
        cli.command()(command)
    return cli


def _tool(context: typer.Context) -> None:
    """Run the module of the same name in `tools`, which production does not have."""
    if not (ROOT / "tools" / f"{context.info_name}.py").exists():
        fail(f"`{context.info_name}` works on the source code of the service; run it in a checkout that has tools/.")
    done = subprocess.run([sys.executable, "-m", f"tools.{context.info_name}", *context.args], cwd=ROOT, check=False)
    raise SystemExit(done.returncode)


def serve(
    context: typer.Context,
    with_worker: Annotated[bool, typer.Option(help="Run jobs too, where there can be one container only.")] = False,
) -> NoReturn:
    """Serve with Gunicorn and Uvicorn workers, as in production.

    Example: WEB_CONCURRENCY=2 app serve
    """
    command = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")]
    if with_worker:
        if "worker" not in getattr(context.find_root().command, "commands", {}):
            fail("This service has no jobs, so there is no worker: leave out --with-worker.")
        from plinth.jobs.processes import Supervisor, worker_commands
        from plinth.serving.metrics_folder import shared_folder

        with shared_folder():  # the server reports the worker too
            raise SystemExit(asyncio.run(Supervisor(worker_commands(context.obj.job.processes), command).run()))
    os.execv(sys.executable, command)


def drain(context: typer.Context) -> None:
    """Let readiness answer 503, and wait until load balancers have noticed; before a stop (Kubernetes: preStop).

    Example: SERVER_DRAIN_FILE=/run/drain app drain
    """
    server = context.obj.server
    if server.drain_file is None:
        fail("The server would not notice; set SERVER_DRAIN_FILE to a path that it and this command can write.")
    try:
        server.drain_file.touch()
    except OSError as error:
        fail(f"SERVER_DRAIN_FILE cannot be written: {error}")
    time.sleep(server.drain_seconds)


def migrate(
    context: typer.Context, revision: Annotated[str, typer.Argument(help="Revision to reach.")] = "head"
) -> None:
    """Wait for the database, and bring it to the newest revision, or to another one.

    Example: app migrate +1
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from plinth.database.startup import StartupError, wait_for_direct

    settings: Settings = context.obj
    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    try:
        asyncio.run(wait_for_direct(settings.database))
        command.upgrade(Config(str(ROOT / "alembic.ini")), revision)
    except StartupError as error:
        fail(str(error))
    except (OSError, CommandError, SQLAlchemyError, UnavailableError) as error:
        fail(f"The database could not be migrated: {error}")


def progress(items: Iterable[Item], length: int, label: str) -> Iterator[Item]:
    """Yield the items, with a progress bar on standard error while they are consumed, if that is a terminal."""
    hidden = not sys.stderr.isatty()
    steps = max(1, length // 1000)
    with typer.progressbar(items, length, label, hidden=hidden, file=sys.stderr, update_min_steps=steps) as bar:
        yield from bar


def fail(message: str) -> NoReturn:
    """End the command with exit code 1 and a sentence on standard error."""
    print(message, file=sys.stderr)
    raise SystemExit(1)


def _check_start(settings: Settings) -> None:
    from plinth.database.startup import StartupError, check

    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    for sentence in unknown_variables(type(settings)):
        log.warning("%s", sentence)
    for name, address in settings.database.addresses():
        for parameter, reason in address.ignored.items():
            log.warning("%s: `%s` is ignored: %s", name, parameter, reason)
    try:
        asyncio.run(check(settings.database))
    except StartupError as error:
        fail(str(error))
