"""The `app` command: what people and containers run.

Commands import what they need when they run, so that wrong settings are told before anything slow is loaded.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer

from app.config import ConfigurationError, Settings, get_settings
from app.exceptions import UnavailableError

SEED_TIMEOUT_SECONDS = 3600  # a million products are one statement
ROOT = Path(__file__).resolve().parent.parent

app = typer.Typer(
    help="Run and maintain the service.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def check_settings(context: typer.Context) -> None:
    try:
        context.obj = get_settings()
    except ConfigurationError as error:
        fail(str(error))


@app.command("check")
def check_start(context: typer.Context) -> None:
    """Wait for the database, and fail unless the service can start on it."""
    from app.database.startup import StartupError, check
    from app.telemetry.logs import configure_logging

    settings: Settings = context.obj
    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    try:
        asyncio.run(check(settings.database))
    except StartupError as error:
        fail(str(error))


@app.command()
def serve() -> NoReturn:
    """Serve with Gunicorn and Uvicorn workers, as in production."""
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")])


@app.command()
def drain(context: typer.Context) -> None:
    """Let readiness answer 503, and wait until load balancers have noticed; before a stop (Kubernetes: preStop)."""
    server = context.obj.server
    if server.drain_file is None:
        fail("The server would not notice; set SERVER_DRAIN_FILE to a path that it and this command can write.")
    try:
        server.drain_file.touch()
    except OSError as error:
        fail(f"SERVER_DRAIN_FILE cannot be written: {error}")
    time.sleep(server.drain_seconds)


@app.command()
def dev(context: typer.Context) -> None:
    """Serve with one Uvicorn process that reloads when the code changes."""
    import uvicorn

    check_start(context)
    settings: Settings = context.obj
    uvicorn.run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        reload=True,
        reload_dirs=[str(ROOT / "app")],
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.http.trusted_proxies,
        timeout_graceful_shutdown=2,
    )


@app.command()
def migrate(
    context: typer.Context, revision: Annotated[str, typer.Argument(help="Revision to reach.")] = "head"
) -> None:
    """Wait for the database, and bring it to the newest revision, or to another one."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from app.database.startup import StartupError, wait_for_direct

    settings: Settings = context.obj
    try:
        asyncio.run(wait_for_direct(settings.database))
        command.upgrade(Config(str(ROOT / "alembic.ini")), revision)
    except StartupError as error:
        fail(str(error))
    except (OSError, CommandError, SQLAlchemyError, UnavailableError) as error:
        fail(f"The database could not be migrated: {error}")


@app.command()
def seed(
    context: typer.Context,
    products: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many products to make.")] = 10_000,
) -> None:
    """Load example data into an empty catalogue."""
    settings: Settings = context.obj
    if not settings.app.example_data:
        fail("Example data is off; set APP_EXAMPLE_DATA=true to load it.")
    try:
        loaded = asyncio.run(_seed(settings, products))
    except UnavailableError as error:
        fail(f"The database could not be filled: {error.__cause__ or error}")
    print(f"Loaded {loaded:,} products." if loaded else "There is a catalogue already; nothing was loaded.")


async def _seed(settings: Settings, products: int) -> int:
    from app.database import open_database
    from app.repositories.example_data import load_example_data

    patient = settings.database.direct.model_copy(update={"statement_timeout_seconds": SEED_TIMEOUT_SECONDS})
    async with (
        open_database(patient, settings.app.name) as database,
        database.transaction() as transaction,
    ):
        return await load_example_data(transaction, products)


@app.command()
def openapi() -> None:
    """Print the API's OpenAPI document."""
    from app.main import create_app

    sys.stdout.buffer.write(orjson.dumps(create_app().openapi(), option=orjson.OPT_INDENT_2) + b"\n")


def fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(1)
