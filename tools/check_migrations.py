"""Refuses migrations that block a table in use, or break the release that still runs while they are applied.

Each revision's `upgrade` is rendered as SQL and examined by Squawk (https://squawkhq.com/docs/rules). A revision for
which a rule has no point declares that, with a comment that says why:

    squawk_ignore = ["ban-drop-column"]  # release 1.4 does not read it any more
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

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
    "ban-alter-identity",
    "ban-concurrent-index-creation-in-transaction",
    "ban-create-domain-with-constraint",
    "ban-drop-column",
    "ban-drop-database",
    "ban-drop-default",
    "ban-drop-extension",
    "ban-drop-function",
    "ban-drop-generated-expression",
    "ban-drop-schema",
    "ban-drop-sequence",
    "ban-drop-table",
    "ban-drop-view",
    "ban-set-schema",
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
    "rewriting-table",
}
# Squawk has no rule for these, before PostgreSQL 19. Each locks its table for as long as it is rewritten.
REWRITING = re.compile(
    r"""(?:\A|;)(?:\s|--[^\n]*\n)*(
        VACUUM\s+(?:FULL|\([^;)]*\bFULL)\b | CLUSTER\b | REFRESH\s+MATERIALIZED\s+VIEW\b(?!\s+CONCURRENTLY\b)
        | ALTER\s+(?:TABLE|MATERIALIZED\s+VIEW|INDEX)\s[^;']*\bSET\s+(?:LOGGED|UNLOGGED|TABLESPACE|ACCESS\s+METHOD)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
OLDEST_POSTGRESQL = "16"
# Projects of the first releases have it as it was before this check, and have applied it long ago.
APPLIED = {"3d6f0a51c9e2"}


class Fault(NamedTuple):
    file: str
    rule: str
    message: str
    line: str


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
        revisions: dict[str, Script] = {}
        for script in reversed([*scripts.walk_revisions()]):
            file = Path(directory, f"{script.revision}.sql")
            try:
                file.write_text(sql_of(script))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                yield f"{_name(script)}: cannot be rendered as SQL, which `alembic upgrade --sql` does ({reason})"
            else:
                revisions[str(file)] = script
        for fault in chain(_examined([*revisions]), _rewriting([*revisions])):
            script = revisions[fault.file]
            if script.revision not in APPLIED and fault.rule in RULES - {*getattr(script.module, "squawk_ignore", ())}:
                yield f"{_name(script)}: {fault.rule}: {fault.message}\n    {fault.line}"


def sql_of(script: Script) -> str:
    buffer = StringIO()
    options = {"as_sql": True, "output_buffer": buffer, "literal_binds": True}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context), context.begin_transaction():
        script.module.upgrade()
    return buffer.getvalue()


def _examined(files: list[str]) -> Iterator[Fault]:
    squawk = str(Path(sysconfig.get_path("scripts"), "squawk"))
    command = [squawk, "--reporter=json", f"--pg-version={OLDEST_POSTGRESQL}"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise SystemExit(f"Squawk failed: {done.stderr}")
    for found in orjson.loads(done.stdout or "[]"):
        line = Path(found["file"]).read_text().split("\n")[found["line"]].strip()
        yield Fault(found["file"], found["rule_name"], " ".join(found["message"].split()), line)


def _rewriting(files: list[str]) -> Iterator[Fault]:
    for file in files:
        for found in REWRITING.finditer(Path(file).read_text()):
            yield Fault(file, "rewriting-table", "The table is locked until it is rewritten.", found[1].split("\n")[0])


def _name(script: Script) -> str:
    return os.path.relpath(script.path)


if __name__ == "__main__":
    sys.exit(main())
