"""What a start waits for, what it refuses, and in which words."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from plinth.database.settings import DatabaseSettings
from plinth.database.startup import StartupError, check, lacking
from plinth.settings import Settings

MIGRATION = "revision = {!r}\ndown_revision = {!r}\n"


def changed(settings: Settings, wait_seconds: float = 0, **parts: Any) -> DatabaseSettings:
    url = make_url(settings.database.url.get_secret_value()).set(**parts).render_as_string(hide_password=False)
    return DatabaseSettings(url=SecretStr(url), wait_seconds=wait_seconds)


@asynccontextmanager
async def stranger(onlooker: asyncpg.Connection, name: str, options: str) -> AsyncIterator[None]:
    """A role that may log in."""
    await onlooker.execute(f"CREATE ROLE {name} LOGIN {options}; GRANT pg_read_all_data TO {name}")
    try:
        yield
    finally:
        await onlooker.execute(f"DROP ROLE {name}")


@pytest.fixture
def stranger_name(worker: str) -> str:
    return f"plinth_stranger_{worker}"  # roles are the whole server's


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"host": "127.0.0.1", "port": 1}, r"127\.0\.0\.1:1 cannot be reached .*refused|failed.* start it, or check"),
        ({"host": "nowhere.invalid"}, r"nowhere\.invalid:\d+ cannot be reached .* check DATABASE_URL"),
        ({"database": "missing"}, r'"missing" does not exist.* check the name in DATABASE_URL, or create the database'),
        ({"username": "nobody"}, r'"nobody" does not exist.* check the user in DATABASE_URL'),
        ({"query": {"ssl": "require"}}, r"rejected SSL upgrade.* check DATABASE_URL"),
        ({"query": {"options": "-c nonsense=1"}}, r"nonsense.* check DATABASE_URL"),
    ],
)
async def test_a_database_that_cannot_be_used_is_reported(
    settings: Settings, parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartupError, match=message) as refused:
        await check(changed(settings, **parts))
    assert len(str(refused.value).splitlines()) == 1


async def test_a_wrong_password_is_reported_at_once(
    settings: Settings, onlooker: asyncpg.Connection, stranger_name: str
) -> None:
    file = await onlooker.fetchval("SHOW hba_file")
    before = (await onlooker.fetchval("SELECT pg_read_file($1)", file)).splitlines()

    async def let_in(*lines: str) -> None:
        quoted = ", ".join("$$" + line + "$$" for line in lines)
        await onlooker.execute(f"COPY (SELECT unnest(ARRAY[{quoted}])) TO '{file}'")
        await onlooker.execute("SELECT pg_reload_conf()")

    async with stranger(onlooker, stranger_name, "PASSWORD 'right'"):
        await let_in(f"host all {stranger_name} all scram-sha-256", *before)
        try:
            with pytest.raises(StartupError, match=r"password authentication failed.*a Docker volume keeps the one"):
                while True:  # until the server has read its file again
                    await check(changed(settings, wait_seconds=60, username=stranger_name, password="wrong"))
            await check(changed(settings, username=stranger_name, password="right"))
        finally:
            await let_in(*before)


async def test_a_server_that_accepts_no_connections_yet_is_waited_for(
    settings: Settings, onlooker: asyncpg.Connection, stranger_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plinth.database")
    async with stranger(onlooker, stranger_name, "CONNECTION LIMIT 0"):
        with pytest.raises(StartupError, match=r"cannot be reached .too many connections"):
            await check(changed(settings, wait_seconds=0.05, username=stranger_name))
        caplog.clear()
        checking = asyncio.create_task(check(changed(settings, wait_seconds=60, username=stranger_name)))
        while "Waiting up to 60 s" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.001)
        await onlooker.execute(f"ALTER ROLE {stranger_name} CONNECTION LIMIT -1")
        await checking


@pytest.mark.parametrize(
    ("revision", "message"), [(None, r"lacks \d+ migrations?: run `app migrate`"), ("of_a_newer_version", None)]
)
async def test_a_database_may_be_ahead_of_us_and_not_behind(
    settings: Settings, onlooker: asyncpg.Connection, revision: str | None, message: str | None
) -> None:
    before = await onlooker.fetchval("DELETE FROM alembic_version RETURNING version_num")
    try:
        if revision:
            await onlooker.execute("INSERT INTO alembic_version VALUES ($1)", revision)
        if message:
            with pytest.raises(StartupError, match=message):
                await check(changed(settings))
            await check(changed(settings).model_copy(update={"require_migrated": False}))
        else:
            await check(changed(settings))
    finally:
        await onlooker.execute("DELETE FROM alembic_version")
        await onlooker.execute("INSERT INTO alembic_version VALUES ($1)", before)


@pytest.mark.parametrize(
    ("reached", "count"), [([], 3), (["a"], 2), (["b"], 1), (["c"], 0), (["newer"], 0), (["a", "newer"], 0)]
)
def test_migrations_are_counted(tmp_path: Path, reached: list[str], count: int) -> None:
    (tmp_path / "versions").mkdir()
    for revision, before in (("a", None), ("b", "a"), ("c", "b")):
        (tmp_path / "versions" / f"{revision}.py").write_text(MIGRATION.format(revision, before))
    assert lacking(reached, tmp_path) == count
