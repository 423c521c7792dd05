"""`app new resource invoices number:str:unique`: adds a resource, as a copy of the example with other names and fields.

Writes a file in each layer with its tests, registers them, and writes the migration. All of it is written or nothing.
"""

import argparse
import difflib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from plinth.testing.environment import ROOT
from plinth.testing.locks import SetupError
from tools.resource.blocks import Resource
from tools.resource.checks import check_clashes, requested
from tools.resource.layers import files
from tools.resource.registered import registered

OURS = "known-first-party = ['app', 'plinth', 'tests', 'tools']"  # what ruff sees by itself in the project's folder
TYPES = """\
types:
  str, str(64)     text with a visible character, of at most 100 or 64 characters
  text             text of at most 10,000 characters; cannot have an index
  int, decimal     whole numbers of 32 bits; exact ones with four decimal places
  money            an amount with two decimal places, stored in minor units
  bool, date, datetime, uuid
  enum(draft,paid) one of these labels
  json             an object
  ref(customers)   a reference: the field `customer` makes a column `customer_id`

after a type:
  ?                may be null           :unique   no two rows have the same value
  =value           the default           :index    lists can be sorted and filtered by it

examples (a shell needs the quotes around parentheses and question marks):
  app new resource customers name:str:unique email:str note:text=
  app new resource invoices number:str:unique issued_on:date:index total:money 'customer:ref(customers)'
  app new resource order_lines order:ref:orders count:int=1 'status:enum(open,shipped)=open' 'note:text?'
"""


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        resource = requested(options.plural, options.singular, options.fields)
        changes = planned(resource, root)
        if options.dry_run:
            print(difference(changes, root), end="")
            print(f"and a migration, `create {resource.plural}`. Nothing was written.", file=sys.stderr)
            return 0
        migration = write(changes, resource, root)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    print(*(f"  {path}" for path in [*changes, migration]), sep="\n")
    print(f"Added /api/{resource.path}. Next: `make check`, `make test-app`, and commit.")
    return 0


def planned(resource: Resource, root: Path) -> dict[str, str]:
    """The new text of each file by its path. Raises SetupError for what clashes with the project."""
    new = files(resource)
    for path in new:
        if (root / path).exists():
            raise SetupError(f"{path} exists already. Choose another name, or remove that file first.")
    check_clashes(resource, root)
    shared = registered(resource, lambda path: (root / path).read_text() if (root / path).exists() else "")
    return formatted(new | shared, root)


def write(changes: Mapping[str, str], resource: Resource, root: Path) -> str:
    """Write the files, and a migration for them. Either all are written or none. Returns the migration's path."""
    touched = [*changes, "openapi.json"]
    before = {path: (root / path).read_bytes() if (root / path).exists() else None for path in touched}
    versions = root / "migrations/versions"
    migrations = {*versions.glob("*.py")}
    try:
        for path, text in changes.items():
            (root / path).write_text(text)
        _run([sys.executable, "-m", "tools.migration", f"create {resource.plural.replace('_', ' ')}"], root)
        (migration,) = {*versions.glob("*.py")} - migrations
        _run([sys.executable, "-m", "tools.openapi"], root)
    except BaseException:
        for path, content in before.items():
            if content is None:
                (root / path).unlink(missing_ok=True)
            else:
                (root / path).write_bytes(content)
        for unfinished in {*versions.glob("*.py")} - migrations:
            unfinished.unlink()
        raise
    return str(migration.relative_to(root))


def formatted(texts: Mapping[str, str], root: Path) -> dict[str, str]:
    """By ruff: imports sorted and joined, those that are not used left out, lines wrapped."""
    with tempfile.TemporaryDirectory(prefix="new-") as directory:
        for path, text in texts.items():
            (Path(directory) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(directory) / path).write_text(text)
        ruff = [sys.executable, "-m", "ruff"]
        options = [
            "--quiet",
            "--no-cache",
            f"--config={root / 'pyproject.toml'}",
            f"--config=lint.isort.{OURS}",
            directory,
        ]
        _run([*ruff, "check", "--select=I,F401,RUF022", "--fix", "--exit-zero", *options], root)
        _run([*ruff, "format", *options], root)
        return {path: (Path(directory) / path).read_text() for path in texts}


def difference(changes: Mapping[str, str], root: Path) -> str:
    lines: list[str] = []
    for path, text in changes.items():
        before = (root / path).read_text().splitlines(keepends=True) if (root / path).exists() else []
        origin = f"a/{path}" if before else "/dev/null"
        lines += difflib.unified_diff(before, text.splitlines(keepends=True), origin, f"b/{path}")
    return "".join(lines)


def _run(argv: Sequence[str], root: Path) -> None:
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"Nothing was written: {(done.stderr or done.stdout).strip()}")


def _parser() -> argparse.ArgumentParser:
    example = "Example: app new resource customers name:str:unique note:text="
    parser = argparse.ArgumentParser(prog="app new", description="Add to the service.", epilog=example)
    what = parser.add_subparsers(required=True, metavar="resource")
    resource = what.add_parser(
        "resource",
        help="add a resource: its five files, tests and migration",
        description="Add a resource: a file in each layer, its tests, its lines in the lists, and a migration.",
        epilog=TYPES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    resource.add_argument("plural", help="its name, such as invoices or order_lines")
    resource.add_argument("fields", nargs="*", metavar="name:type", help="its fields; see below")
    resource.add_argument("--singular", help="where it is not the plural without s: --singular=person")
    resource.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
