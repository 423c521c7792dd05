"""Enum types in migrations, which Alembic leaves to the tables that use them, and never drops.

With `write_enum_types`, a migration creates a type before everything else, changes its labels, and drops it at last.
The downgrade does the opposite.
"""

from collections.abc import Sequence
from typing import Any, cast

from alembic.operations.ops import ExecuteSQLOp, MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Enum, MetaData, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.base import PGInspector

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
Labels = Sequence[str]


def render_enum(enum: Enum, imports: set[str]) -> str:
    """The type of a column in a migration, which does not create it."""
    imports.add("from sqlalchemy.dialects import postgresql")
    labels = ", ".join(repr(label) for label in enum.enums)
    return f"postgresql.ENUM({labels}, name={enum.name!r}, create_type=False)"


def write_enum_types(context: MigrationContext, _revision: object, directives: list[Any]) -> None:
    """A `process_revision_directives` of Alembic: add to a migration what it lacks for enum types."""
    script: MigrationScript = directives[0]
    if context.connection is None or script.upgrade_ops is None or script.downgrade_ops is None:
        return  # without a database there is nothing to compare with
    reflected = MetaData()
    reflected.reflect(context.connection)
    models, tables = _users(context.opts["target_metadata"]), _users(reflected)
    wanted = {name: enum.enums for name, (enum, _) in models.items()}
    present = {enum["name"]: enum["labels"] for enum in cast(PGInspector, inspect(context.connection)).get_enums()}
    for ops, before, after, users in (
        (script.upgrade_ops, present, wanted, tables),
        (script.downgrade_ops, wanted, present, models),
    ):
        created = [_create(name, after[name]) for name in after.keys() - before.keys()]
        changed = [
            sql
            for name in sorted(after.keys() & before.keys())
            if after[name] != before[name]
            for sql in _change(name, before[name], after[name], users[name][1] if name in users else [])
        ]
        dropped = [f"DROP TYPE {_quoted(name)}" for name in before.keys() - after.keys()]
        written = {op.sqltext for op in ops.ops if isinstance(op, ExecuteSQLOp)}  # tools/migration.py calls this, too
        ops.ops[:0] = [ExecuteSQLOp(sql) for sql in sorted(created) + changed if sql not in written]
        ops.ops += [ExecuteSQLOp(sql) for sql in sorted(dropped) if sql not in written]


def _users(metadata: MetaData) -> dict[str, tuple[Enum, list[Column[Any]]]]:
    """The enum types of tables, with the columns that have them."""
    users: dict[str, tuple[Enum, list[Column[Any]]]] = {}
    for table in metadata.sorted_tables:
        for column in table.columns:
            kind = getattr(column.type, "item_type", column.type)  # of an array
            if isinstance(kind, Enum) and kind.native_enum and kind.name:
                users.setdefault(kind.name, (kind, []))[1].append(column)
    return users


def _create(name: str, labels: Labels) -> str:
    return f"CREATE TYPE {_quoted(name)} AS ENUM ({', '.join(map(_literal, labels))})"


def _change(name: str, before: Labels, after: Labels, columns: list[Column[Any]]) -> list[str]:
    """New labels alone are added, without a lock on the tables. Anything else needs another type in its place."""
    kept = [label for label in after if label in before]
    if kept == list(before):
        return [
            f"ALTER TYPE {_quoted(name)} ADD VALUE {_literal(label)}"
            + (f" AFTER {_literal(after[index - 1])}" if index else f" BEFORE {_literal(before[0])}")
            for index, label in enumerate(after)
            if label not in before
        ]
    old = f"{name}_old"
    sql = [f"ALTER TYPE {_quoted(name)} RENAME TO {_quoted(old)}", _create(name, after)]
    for column in columns:
        alter = f"ALTER TABLE {_quoted(column.table.name)} ALTER COLUMN {_quoted(column.name)}"
        array = "[]" if hasattr(column.type, "item_type") else ""
        kind = f"{_quoted(name)}{array}"
        changed = f"{alter} TYPE {kind} USING {_quoted(column.name)}::text{array}::{kind}"
        default = getattr(column.server_default, "arg", None)
        if default is None:
            sql.append(changed)
        else:
            text = _literal(default) if isinstance(default, str) else str(default)
            sql += [f"{alter} DROP DEFAULT", changed, f"{alter} SET DEFAULT {text}"]
    return [*sql, f"DROP TYPE {_quoted(old)}"]


def _quoted(name: str) -> str:
    return DIALECT.identifier_preparer.quote(name)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
