"""Refuses migrations that block a table in use, or break the release that still runs while they are applied.

Each revision's `upgrade` is rendered as SQL and examined by Squawk (https://squawkhq.com/docs/rules). A revision for
which a rule has no point declares that, with a comment that says why:

    squawk_ignore = ["ban-drop-column"]  # release 1.4 does not read it any more
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

# What locks a table while it is scanned or rewritten, and what running code may still use. Squawk's other rules
# are about style (`text` for `varchar`), and about timeouts, which migrations/env.py sets.
RULES = {
    "adding-field-with-default",
    "adding-foreign-key-constraint",
    "adding-not-nullable-field",
    "adding-required-field",
    "adding-serial-primary-key-field",
    "ban-alter-domain-with-add-constraint",
    "ban-concurrent-index-creation-in-transaction",
    "ban-create-domain-with-constraint",
    "ban-drop-column",
    "ban-drop-database",
    "ban-drop-table",
    "ban-drop-view",
    "ban-truncate-cascade",
    "changing-column-type",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "renaming-column",
    "renaming-object",
    "renaming-table",
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
    "require-concurrent-partition-detach",
    "require-concurrent-reindex",
}
OLDEST_POSTGRESQL = "16"
# Projects of the first releases have it as it was before this check, and have applied it long ago.
APPLIED = {"3d6f0a51c9e2"}


def main(ini: str = "alembic.ini") -> int:
    faults = [*check(ScriptDirectory.from_config(Config(ini)))]
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        print("docs/plinth/migrations.md shows how to do it without.", file=sys.stderr)
    return bool(faults)


def check(scripts: ScriptDirectory) -> Iterator[str]:
    """Yield a sentence for each fault of a revision."""
    with tempfile.TemporaryDirectory(prefix="migrations-") as directory:
        revisions = {}
        for script in reversed([*scripts.walk_revisions()]):
            file = Path(directory, f"{script.revision}.sql")
            try:
                file.write_text(sql_of(script))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                yield f"{_name(script)}: cannot be rendered as SQL, which `alembic upgrade --sql` does ({reason})"
            else:
                revisions[str(file)] = script
        for fault in _examined([*revisions]):
            script = revisions[fault["file"]]
            if script.revision not in APPLIED and fault["rule_name"] in RULES - {
                *getattr(script.module, "squawk_ignore", ())
            }:
                line = Path(fault["file"]).read_text().split("\n")[fault["line"]].strip()
                yield f"{_name(script)}: {fault['rule_name']}: {' '.join(fault['message'].split())}\n    {line}"


def sql_of(script: Script) -> str:
    buffer = StringIO()
    options = {"as_sql": True, "output_buffer": buffer, "literal_binds": True}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context), context.begin_transaction():
        script.module.upgrade()
    return buffer.getvalue()


def _examined(files: list[str]) -> list[dict[str, Any]]:
    squawk = str(Path(sysconfig.get_path("scripts"), "squawk"))
    command = [squawk, "--reporter=json", f"--pg-version={OLDEST_POSTGRESQL}"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise SystemExit(f"Squawk failed: {done.stderr}")
    found: list[dict[str, Any]] = orjson.loads(done.stdout or "[]")
    return found


def _name(script: Script) -> str:
    return os.path.relpath(script.path)


if __name__ == "__main__":
    sys.exit(main())
