"""`make migration NAME="create suppliers"`: writes a migration for what changed in the models.

Models and migrations are compared on an embedded PostgreSQL of its own, so the state of other databases is irrelevant.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.operations.ops import DropTableOp, MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import MetaData
from sqlalchemy.engine import make_url

from plinth.database.enums import write_enum_types
from plinth.testing.locks import SetupError, held
from plinth.testing.servers import POSTGRES_VERSION, started
from tools import revisions


def main(name: str) -> int:
    if not name:
        print('Give the migration a name: `make migration NAME="create suppliers"`.', file=sys.stderr)
        return 1
    try:
        write(name)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def write(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="migration-") as directory:
        place = Path(directory)
        with held(place), started(place, POSTGRES_VERSION, False, {"REDIS_URL": "none"}) as servers:
            url = make_url(servers.database_url).set(drivername="postgresql+asyncpg")
            config = Config("alembic.ini")
            config.set_main_option("sqlalchemy.url", url.render_as_string(hide_password=False).replace("%", "%%"))
            command.upgrade(config, "head")
            script = command.revision(config, name, autogenerate=True, process_revision_directives=complete)
            if isinstance(script, Script):
                in_order(Path(script.path))


def in_order(migration: Path) -> Path:
    """Rename a migration that was written in the same minute as the one before: files go by date."""
    others = [path.name for path in migration.parent.glob("*.py") if path != migration]
    return migration.rename(migration.with_name(revisions.in_order(migration.name, others)))


def complete(context: MigrationContext, revision: object, directives: list[Any]) -> None:
    if context.connection is not None:
        tables = MetaData()
        tables.reflect(context.connection)
        drop_referring_tables_first(directives[0], [table.name for table in tables.sorted_tables])
    write_enum_types(context, revision, directives)
    if directives[0].upgrade_ops.is_empty():
        directives.clear()
        raise SetupError("The models have not changed: is the new one imported in app/models/__init__.py?")


def drop_referring_tables_first(script: MigrationScript, tables: Sequence[str]) -> None:
    """Alembic drops tables in the order of a set, which differs from run to run. `tables` begins with the referred."""
    if script.upgrade_ops is None or script.downgrade_ops is None:
        return
    operations = script.upgrade_ops.ops
    dropped = [each for each in operations if isinstance(each, DropTableOp)]
    others = [each for each in operations if not isinstance(each, DropTableOp)]  # such as indexes that go before
    dropped.sort(key=lambda each: tables.index(each.table_name), reverse=True)
    operations[:] = [*others, *dropped]
    script.upgrade_ops.reverse_into(script.downgrade_ops)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
