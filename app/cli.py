"""The `app` command: what people and containers run. Your own commands stand beside plinth's."""

import asyncio
import sys
from functools import partial
from typing import Annotated

import typer
from pydantic import ValidationError

from app.settings import Settings, get_settings
from plinth.cli import create_cli, fail, progress
from plinth.errors import AppError, UnavailableError

SEED_TIMEOUT_SECONDS = 3600  # a million products are one statement
SEED_CONNECT_SECONDS = 30.0  # no client waits

app = create_cli(get_settings, application="app.main:app", worker="app.main:create_worker")


@app.command("create-admin")
def create_admin(
    context: typer.Context, email: Annotated[str, typer.Argument(help="Address that the administrator signs in with.")]
) -> None:
    """Create an administrator. The password is asked for on a terminal, or else read from standard input.

    Example: app create-admin ada@example.com
    """
    terminal = sys.stdin.isatty()
    ask = partial(typer.prompt, "Password", hide_input=True, confirmation_prompt=True, err=True)
    password = ask() if terminal else sys.stdin.readline().rstrip("\r\n")
    try:
        print(f"{asyncio.run(_create_admin(context.obj, email, password))} can sign in.")
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        fail(f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}.")
    except UnavailableError as error:
        fail(f"The administrator could not be stored: {error.__cause__ or error}")
    except AppError as error:
        fail(str(error))


async def _create_admin(settings: Settings, email: str, password: str) -> str:
    from app.access import get_account_creator
    from app.enums import Role
    from app.schemas.auth import Registration
    from plinth.database import open_database
    from plinth.security import open_passwords

    data = Registration(email=email, password=password, name="Administrator")
    async with open_passwords(1) as passwords, open_database(settings.database, settings.app.name) as database:
        sessions = database.sessions
        async with sessions.begin() as session:
            await (await get_account_creator(session, passwords)).create(data, Role.ADMIN)
    return data.email


@app.command()
def seed(
    context: typer.Context,
    products: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many products to make.")] = 10_000,
) -> None:
    """Load example data into an empty catalogue.

    Example: app seed --products 1000000
    """
    settings: Settings = context.obj
    if not settings.app.example_data:
        fail("Example data is off; set APP_EXAMPLE_DATA=true to load it.")
    try:
        loaded = asyncio.run(_seed(settings, products))
    except UnavailableError as error:
        fail(f"The database could not be filled: {error.__cause__ or error}")
    print(f"Loaded {loaded:,} products." if loaded else "There is a catalogue already; nothing was loaded.")


async def _seed(settings: Settings, products: int) -> int:
    from app.example_data import EXAMPLE_PASSWORD
    from app.repositories.example_data import load_example_accounts, load_example_data
    from plinth.database import open_database
    from plinth.security import open_passwords

    patient = settings.database.direct.model_copy(
        update={"statement_timeout_seconds": SEED_TIMEOUT_SECONDS, "connect_timeout_seconds": SEED_CONNECT_SECONDS}
    )
    async with open_passwords(1) as passwords:
        hash = await passwords.hash(EXAMPLE_PASSWORD)
    async with (
        open_database(patient, settings.app.name) as database,
        database.sessions.begin() as session,
    ):
        await load_example_accounts(session, hash)
        return await load_example_data(session, products, partial(progress, length=products, label="Loading products"))


@app.command("sweep-uploads")
def sweep_uploads(context: typer.Context) -> None:
    """Delete files that are older than a day and belong to no row: of deleted products, and of processes that died.

    Example: app sweep-uploads
    """
    try:
        print(f"Deleted {asyncio.run(_sweep_uploads(context.obj)):,} files.")
    except UnavailableError as error:
        fail(f"The files could not be compared with the database: {error.__cause__ or error}")


async def _sweep_uploads(settings: Settings) -> int:
    from app.repositories.images import ImageQueries
    from app.services.images import sweep
    from plinth.database import open_database
    from plinth.storage import open_storage

    async with (
        open_database(settings.database, settings.app.name) as database,
        open_storage(settings.storage) as storage,
    ):
        return await sweep(ImageQueries(database.reads), storage)
