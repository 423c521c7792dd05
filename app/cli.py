"""The `app` command: what people and containers run. Your own commands stand beside plinth's."""

import asyncio
from functools import partial
from typing import Annotated

import typer

from app.settings import Settings, get_settings
from plinth.cli import create_cli, fail, progress
from plinth.errors import UnavailableError

SEED_TIMEOUT_SECONDS = 3600  # a million products are one statement

app = create_cli(get_settings, application="app.main:app", worker="app.main:create_worker")


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
    from app.repositories.example_data import load_example_data
    from plinth.database import open_database

    patient = settings.database.direct.model_copy(update={"statement_timeout_seconds": SEED_TIMEOUT_SECONDS})
    async with (
        open_database(patient, settings.app.name) as database,
        database.sessions.begin() as session,
    ):
        return await load_example_data(session, products, partial(progress, length=products, label="Loading products"))
