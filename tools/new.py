"""`app new resource invoices number:str:unique`: adds a resource, as a copy of the example with other names and fields.

Writes a file in each layer with its tests, registers them, and writes the migration. All of it is written or nothing.
"""

import argparse
import ast
import difflib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from plinth.testing.environment import ROOT
from plinth.testing.locks import SetupError
from tools.resource.blocks import BLOCKS, REQUEST_TYPES, Resource
from tools.resource.layers import files, source
from tools.resource.parsing import check_name, parse, singular_of
from tools.resource.registered import registered

LISTS = {"sort", "limit", "cursor", "total", "cursor_id"}  # what is never the name of a filter
LONGEST_IDENTIFIER = 63  # of PostgreSQL
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
    print(
        f"Each of the {resource.plural.replace('_', ' ')} is a {resource.class_name} at /api/{resource.path}.", end=" "
    )
    print("Next: `make check`, `make test-app`, and commit.")
    return 0


def requested(plural: str, singular: str | None, specifications: Sequence[str]) -> Resource:
    """Raises SetupError for what cannot be a resource."""
    plural = plural.replace("-", "_")
    check_name(plural, "resource")
    singular = singular.replace("-", "_") if singular else singular_of(plural)
    if singular is None:
        raise SetupError(f"{plural} has no singular that could be guessed. Add --singular=…")
    check_name(singular, "resource") if singular != plural else None
    if singular == plural:
        raise SetupError(f"{plural} needs a singular that differs from it. Add another --singular=…")
    fields = [parse(each, plural, singular) for each in specifications]
    if not fields:
        raise SetupError(f"A resource needs a field. Write app new resource {plural} name:str:unique, for example.")
    names = [field.column for field in fields]
    parameters = [parameter for field in fields for parameter in field.parameters]
    for name in names:
        if names.count(name) > 1:
            raise SetupError(f"There are two fields {name}. Rename or leave out one of them.")
        if len(f"ck_{plural}_{name}_not_negative") > LONGEST_IDENTIFIER:
            raise SetupError(f"{plural} and {name} are too long together for PostgreSQL. Shorten one of them.")
    for parameter in parameters:
        if parameter in LISTS or parameters.count(parameter) > 1:
            raise SetupError(f"Lists cannot have a filter {parameter}, because there is one already. Rename the field.")
    return Resource(plural, singular, fields)


def planned(resource: Resource, root: Path) -> dict[str, str]:
    """The new text of each file by its path. Raises SetupError for what clashes with the project."""
    new = files(resource)
    for path in new:
        if (root / path).exists():
            raise SetupError(f"{path} exists already. Choose another name, or remove that file first.")
    _check_clashes(resource, root)
    shared = registered(resource, lambda path: (root / path).read_text() if (root / path).exists() else "")
    return {path: formatted(text, path, root) for path, text in (new | shared).items()}


def write(changes: Mapping[str, str], resource: Resource, root: Path) -> str:
    """Write the files, and a migration for them. Either all are written or none. Returns the migration's path."""
    before = {path: (root / path).read_bytes() if (root / path).exists() else None for path in changes}
    versions = root / "migrations/versions"
    migrations = {*versions.glob("*.py")}
    try:
        for path, text in changes.items():
            (root / path).write_text(text)
        _run([sys.executable, "-m", "tools.migration", f"create {resource.plural.replace('_', ' ')}"], root)
        (migration,) = {*versions.glob("*.py")} - migrations
    except BaseException:
        for path, content in before.items():
            if content is None:
                (root / path).unlink(missing_ok=True)
            else:
                (root / path).write_bytes(content)
        for path in {*versions.glob("*.py")} - migrations:
            path.unlink()
        raise
    return str(migration.relative_to(root))


def formatted(text: str, path: str, root: Path) -> str:
    """By ruff: imports sorted and joined, those that are not used left out, lines wrapped."""
    ruff, name = [sys.executable, "-m", "ruff"], f"--stdin-filename={path}"
    text = _run([*ruff, "check", "--select=I,F401,RUF022", "--fix", "--exit-zero", "--quiet", name, "-"], root, text)
    return _run([*ruff, "format", "--quiet", name, "-"], root, text)


def difference(changes: Mapping[str, str], root: Path) -> str:
    lines: list[str] = []
    for path, text in changes.items():
        before = (root / path).read_text().splitlines(keepends=True) if (root / path).exists() else []
        origin = f"a/{path}" if before else "/dev/null"
        lines += difflib.unified_diff(before, text.splitlines(keepends=True), origin, f"b/{path}")
    return "".join(lines)


def _check_clashes(resource: Resource, root: Path) -> None:
    for field in resource.fields:
        if field.target and not field.is_self and not (root / f"app/models/{field.target}.py").exists():
            raise SetupError(f"{field.name} refers to {field.target}, which is no resource. Add that one first.")
        if field.enum and re.search(rf"\bclass {field.enum_class}\b", _read(root / "app/enums.py")):
            raise SetupError(f"app/enums.py has a class {field.enum_class} already. Rename {field.name}.")
    used = {name for layer in BLOCKS for name in _identifiers(source(layer))}
    used |= set(re.findall(r"\w+", _read(root / "app/tags.py") + _read(root / "app/models/__init__.py")))
    for name in (resource.plural, resource.singular, resource.plural.upper(), resource.class_name):
        if name in used:
            raise SetupError(
                f"{resource.plural} is no name for a resource, because the code uses {name}. Choose another."
            )
    classes = {f"{resource.class_name}{each}" for each in ("Reader", "Service", "Queries", "Repository")}
    if taken := classes & set(re.findall(r"\w+", _read(root / "app/dependencies.py"))):
        raise SetupError(f"app/dependencies.py has {min(taken)} already. Choose another name than {resource.plural}.")
    types = _read(root / "app/schemas/types.py")
    for kind in REQUEST_TYPES:
        if any(kind in field.request for field in resource.fields) and not re.search(rf"(?m)^{kind} = ", types):
            raise SetupError(f"app/schemas/types.py has no {kind}. Copy it from the newest template, and try again.")


def _identifiers(text: str) -> set[str]:
    """What the code of every resource names, apart from its own names and from attributes."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.alias(name=name):
                names.add(name)
    return {name for name in names if "categor" not in name.lower()}


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _run(argv: Sequence[str], root: Path, text: str = "") -> str:
    done = subprocess.run(argv, cwd=root, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"Nothing was written: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="app new", description="Add to the service.")
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
