"""A replica that migrates one database after the other: each line of its standard input is a URL.

What runs is what `app migrate` runs, with the project's own migrations/env.py and its lock, on the revisions of the
folder beside this file.
"""

import asyncio
import sys
from pathlib import Path

from alembic import command

from plinth.database import DatabaseSettings
from plinth.database.startup import wait_for_direct
from plinth.testing.migrations import alembic_config

REVISIONS = Path(__file__).parent / "migrations"


def migrate(url: str) -> None:
    config = alembic_config(url)
    config.set_main_option("version_locations", str(REVISIONS))
    asyncio.run(wait_for_direct(DatabaseSettings.model_validate({"url": url})))
    command.upgrade(config, "head")


def answer(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    answer("ready")
    for line in sys.stdin:
        migrate(line.strip())
        answer("migrated")
