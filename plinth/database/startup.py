"""The check before anything is served: the database answers, and has the tables of this version of the service.

A fault that may pass is waited for; any other ends the start with one sentence that says what to do. The check runs
once, before the first worker: a worker that is replaced later must start even while the database is away.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterable
from pathlib import Path

import asyncpg
from alembic.script import ScriptDirectory

from plinth.database.connections import driver_arguments
from plinth.database.errors import DRIVER_ERRORS, is_connection_lost
from plinth.database.settings import DatabaseSettings

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0

WHAT_TO_DO: dict[type[Exception], str] = {
    asyncpg.InvalidPasswordError: "check the password in {url}; a Docker volume keeps the one it was first made with",
    asyncpg.InvalidAuthorizationSpecificationError: "check the user in {url}, and pg_hba.conf",
    asyncpg.InvalidCatalogNameError: "check the name in {url}, or create the database",
    ssl.SSLError: "check the certificates and the host's name in {url}",
    asyncpg.ProtocolViolationError: "check the configuration of the connection pooler",
}


class StartupError(Exception):
    """The service cannot start. Its text is one sentence."""


async def check(settings: DatabaseSettings) -> None:
    """Wait for the database, and refuse one that lacks migrations. Raises StartupError."""
    connection = await _reach(settings, "DATABASE_URL")
    try:
        if settings.require_migrated:
            await _refuse_what_lacks_migrations(connection)
    finally:
        await connection.close()


async def wait_for_direct(settings: DatabaseSettings) -> None:
    """Wait for the database that migrations run on. Raises StartupError."""
    connection = await _reach(settings.direct, "DATABASE_DIRECT_URL" if settings.direct_url else "DATABASE_URL")
    await connection.close()


async def _reach(settings: DatabaseSettings, variable: str) -> asyncpg.Connection:
    """A connection, as soon as the database accepts one. `variable` names its URL."""
    address = settings.address
    place = f"{address.hosts[0]}:{address.ports[0]}"
    options = driver_arguments(settings, "startup")
    give_up_at = asyncio.get_running_loop().time() + settings.wait_seconds
    pause = SHORTEST_PAUSE_SECONDS
    while True:
        try:
            return await asyncpg.connect(**options)
        except (*DRIVER_ERRORS, TypeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if not _may_pass(error):
                hint = next((hint for kind, hint in WHAT_TO_DO.items() if isinstance(error, kind)), "check {url}")
                raise StartupError(
                    f"The database refuses the connection ({reason}): {hint.format(url=variable)}."
                ) from error
            left = give_up_at - asyncio.get_running_loop().time()
            if left <= 0:
                raise StartupError(
                    f"The database at {place} cannot be reached ({reason}): start it, or "
                    f"{'set' if settings.is_local_default else 'check'} {variable}."
                ) from error
        if pause == SHORTEST_PAUSE_SECONDS:
            log.info("Waiting up to %g s for the database at %s: %s", settings.wait_seconds, place, reason)
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _may_pass(error: Exception) -> bool:
    """Whether the server is starting, restarting or full, or its name cannot be resolved yet."""
    if type(error) is ConnectionError or isinstance(error, (ssl.SSLError, asyncpg.ProtocolViolationError)):
        return False  # the first is asyncpg's, of a server without TLS
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in {"08", "53", "57"}  # not connected, out of resources, starting or stopping
    return is_connection_lost(error)


async def _refuse_what_lacks_migrations(connection: asyncpg.Connection) -> None:
    try:
        async with connection.transaction():  # a pooler sends a transaction to one server
            rows = await connection.fetch("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        rows = []
    except DRIVER_ERRORS as error:
        raise StartupError(
            f"The database's migrations cannot be read ({error}): check the rights of the user."
        ) from error
    if missing := lacking([row["version_num"] for row in rows]):
        raise StartupError(
            f"The database lacks {missing} migration{'s' * (missing > 1)}: run `app migrate`, "
            "or set DATABASE_REQUIRE_MIGRATED=false to start without."
        )


def lacking(revisions: Iterable[str], migrations: Path = MIGRATIONS) -> int:
    """How many of this version's migrations a database at these revisions lacks.

    An unknown revision belongs to a newer version of the service that is being rolled out or was rolled back. Its
    migrations must work with the version before them, or no rollout would be without a gap. So nothing is lacking.
    """
    directory = ScriptDirectory(str(migrations))
    ours = {script.revision for script in directory.walk_revisions()}
    reached = set(revisions)
    if newer := reached - ours:
        log.info("The database is at %s, of a newer version of the service", ", ".join(newer))
        return 0
    seen = {script.revision for revision in reached for script in directory.iterate_revisions(revision, "base")}
    return len(ours - seen)
