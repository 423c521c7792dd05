"""`make backup-drill`: tests that a backup can be restored.

Dumps `DATABASE_URL` while it is in use, restores the dump into a new database on the same server (or on that of
`RESTORE_URL`), compares the two, and drops the new one.
"""

import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from plinth.testing.locks import SetupError
from plinth.testing.postgres import binaries
from tools.scratch import run

# A checksum over every column that does not depend on the order of the rows.
CONTENT = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {} AS t"
TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
DEFINITIONS = """
SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid <> 0
UNION ALL SELECT 'sequence ' || schemaname || '.' || sequencename, (last_value IS NOT NULL)::text FROM pg_sequences
UNION ALL SELECT 'extension ' || extname, extversion FROM pg_extension
"""

Inventory = dict[str, str]


async def drill(source: URL, server: URL) -> None:
    """Dump, restore and compare. Raises SetupError if the copy differs from the original."""
    with tempfile.TemporaryDirectory(prefix="backup-drill-") as directory:
        dump = str(Path(directory, "dump"))
        started = time.monotonic()
        programs, before = await _dump(source, dump)
        dumped = time.monotonic()
        fresh = server.set(database=f"{source.database}_drill_{os.getpid()}")
        after = await _restore(programs, fresh, server, dump)
        restored = time.monotonic()
    if lost := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        raise SetupError(f"The copy differs from the original: {', '.join(lost)}.")
    rows = [int(content.split()[0]) for name, content in before.items() if name.startswith("table ")]
    print(
        f"Dumped in {dumped - started:.1f} s, restored in {restored - dumped:.1f} s, including a read of all rows each."
    )
    print(f"The copy is identical: {len(rows)} tables, {sum(rows):,} rows.")


async def _dump(source: URL, dump: str) -> tuple[Path, Inventory]:
    """Dump the database. Returns the folder of the programs, and the inventory of the very snapshot that was dumped."""
    async with _connected(source) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
        programs = _programs(connection.get_server_version().major)
        await _run(programs / "pg_dump", source, "--format=custom", f"--snapshot={snapshot}", f"--file={dump}")
        return programs, await _inventory(connection)


async def _restore(programs: Path, fresh: URL, server: URL, dump: str) -> Inventory:
    async with _connected(server) as connection:
        await connection.execute(f'CREATE DATABASE "{fresh.database}" TEMPLATE template0')
        try:
            await _run(programs / "pg_restore", fresh, "--exit-on-error", "--no-owner", "--no-privileges", dump)
            async with _connected(fresh) as copy:
                return await _inventory(copy)
        finally:
            await connection.execute(f'DROP DATABASE "{fresh.database}" WITH (FORCE)')


async def _inventory(connection: asyncpg.Connection) -> Inventory:
    found: Inventory = dict(await connection.fetch(DEFINITIONS))
    for [table] in await connection.fetch(TABLES):
        rows, content = await connection.fetchrow(CONTENT.format(table))
        found[f"table {table}"] = f"{rows} {content}"
    return found


@asynccontextmanager
async def _connected(url: URL) -> AsyncIterator[asyncpg.Connection]:
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    # The text of a row depends on these settings.
    settings = {"timezone": "UTC", "extra_float_digits": "1", "statement_timeout": "0"}
    connection = await asyncpg.connect(address, server_settings=settings, timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


async def _run(program: Path, url: URL, *options: str) -> None:
    # Not as an argument, because every user of the machine can read those.
    address = url.set(drivername="postgresql", password=None).render_as_string()
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    process = await asyncio.create_subprocess_exec(
        str(program), f"--dbname={address}", *options, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, error = await process.communicate()
    if process.returncode:
        raise SetupError(f"{program.name} failed: {error.decode(errors='replace').strip()}")


def _programs(server: int) -> Path:
    """The folder of pg_dump and pg_restore: from the PATH, or else the embedded ones.

    They must have the server's version: an older pg_dump refuses it, and a newer pg_restore sets unknown parameters.
    """
    found = shutil.which("pg_dump")
    if found and re.search(rf"\(PostgreSQL\) {server}\b", run([found, "--version"])):
        return Path(found).parent
    try:
        return binaries(server)
    except SetupError:
        raise SetupError(
            f"pg_dump and pg_restore of PostgreSQL {server} are needed: install them, or add them to the PATH."
        ) from None


def main() -> int:
    source, server = os.environ.get("DATABASE_URL"), os.environ.get("RESTORE_URL")
    if not source:
        print("Name the database: make backup-drill DATABASE_URL=postgresql://…", file=sys.stderr)
        return 1
    try:
        asyncio.run(drill(make_url(source), make_url(server or source)))
    except (SetupError, ArgumentError, OSError, asyncpg.PostgresError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
