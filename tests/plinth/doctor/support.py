"""Runs checks, and speaks with databases, from tests that have no event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from pydantic import SecretStr

from plinth.database import DatabaseSettings
from plinth.doctor.findings import Finding
from plinth.doctor.migrations import migrations

INI = "[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n"
ENV = """
import asyncio
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, Text
from plinth.database import DatabaseSettings
from plinth.database.migrations import include_name, migrating

metadata = MetaData()
Table("lamps", metadata, Column("id", Integer, primary_key=True), Column("name", Text, nullable=False))


def run(connection):
    context.configure(connection=connection, target_metadata=metadata, include_name=include_name)
    with context.begin_transaction():
        context.run_migrations()


async def online():
    settings = DatabaseSettings.model_validate({"url": context.config.get_main_option("sqlalchemy.url")})
    async with migrating(settings) as connection:
        await connection.run_sync(run)
        await connection.commit()


asyncio.run(online())
"""
REVISION = """
from alembic import op

revision, down_revision = {revision!r}, {before!r}


def upgrade():
    op.execute({statement!r})
"""
CREATE = "CREATE TABLE lamps (id serial PRIMARY KEY, name text NOT NULL)"


def execute(url: str, *statements: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


async def listed(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]


def the_one(findings: Iterable[Finding], check: str = "") -> Finding:
    """The only finding, of this check if it is named."""
    [finding] = [each for each in findings if not check or each.check == check]
    return finding


def levels(findings: Iterable[Finding]) -> dict[str, Any]:
    return {finding.check: finding.level for finding in findings}


class Project:
    """One with two migrations, of one table."""

    def __init__(self, folder: Path, url: str) -> None:
        self.ini = folder / "alembic.ini"
        self._versions = folder / "migrations/versions"
        self.url = url
        self._versions.mkdir(parents=True)
        self.ini.write_text(INI)
        (folder / "migrations/env.py").write_text(ENV)
        self.add("one", None, CREATE)
        self.add("two", "one", "CREATE TABLE plinth_own (id int)")

    def add(self, revision: str, before: str | None, statement: str) -> None:
        text = REVISION.format(revision=revision, before=before, statement=statement)
        (self._versions / f"{revision}.py").write_text(text)

    def migrate(self, revision: str = "head") -> None:
        config = Config(str(self.ini))
        config.set_main_option("sqlalchemy.url", self.url)
        command.upgrade(config, revision)

    def examined(self, production: bool = False) -> list[Finding]:
        return [*migrations(DatabaseSettings(url=SecretStr(self.url)), production, self.ini)]
