"""`make drill`: a fresh clone of HEAD becomes a project of its own, gets two resources, and loses parts, one by one.

`app new resource` writes the suppliers. The purchases, which refer to them and have a rule, are in purchases.md, and
are registered by hand. When the example is gone, the README's commands add two more, which stay when the accounts go,
and then jobs. After each step checks and tests pass.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from app.settings import Settings
from plinth.testing.environment import ROOT, variables

LAYERS = ["models", "schemas", "repositories", "services", "routers"]
MOST_LINES = 300
SUPPLIERS = "app new resource suppliers name:str:unique 'email:str(254)' rating:int"
PURCHASES = {"categories": "purchases", "category": "purchase"}
RESOURCES = """\
    Resource(
        "/api/purchases", create={"number": "A-{n}", "supplier_id": 1, "due_on": "2026-12-24", "total": "{n}.00"}
    ),
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="drill-") as directory:
        project = Path(directory, "project")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
        make(project, "init", "NAME=Billing API", "AUTHOR=Ada Lovelace")
        make(project, "check")
        make(project, "test")
        add_suppliers(project)
        add_purchases(project)
        make(project, "migration", "NAME=create purchases")
        make(project, "openapi-check")
        make(project, "check")
        make(project, "test-app")
        remove(project, "example")
        for command in re.findall(r"(?m)^\$ \.venv/bin/(app new .*)", (ROOT / "README.md").read_text()):
            app(project, command)
        make(project, "check")
        make(project, "test")
        for name in ("accounts", "jobs"):
            remove(project, name)
            make(project, "lock")
            make(project, "check")
            make(project, "test-app")
    return 0


def make(project: Path, *arguments: str) -> None:
    run(project, shlex.join(["make", *arguments]))


def app(project: Path, command: str) -> None:
    run(project, f".venv/bin/{command}")


def run(project: Path, command: str) -> None:
    """Without a terminal, and without what an outer make or the settings of this shell would change."""
    dropped = variables(Settings).keys() | {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    began = time.monotonic()
    print(f"\n$ {command}", flush=True)
    subprocess.run(shlex.split(command), cwd=project, env=environment, stdin=subprocess.DEVNULL, check=True)
    print(f"(in {time.monotonic() - began:.0f} s)", flush=True)


def add_suppliers(project: Path) -> None:
    app(project, SUPPLIERS)
    lines = sum((project / f"app/{layer}/suppliers.py").read_text().count("\n") for layer in LAYERS)
    print(f"\nThe five files of suppliers have {lines} lines; {MOST_LINES} are allowed.")
    assert lines <= MOST_LINES


def add_purchases(project: Path) -> None:
    page = (ROOT / "tests/tools/purchases.md").read_text()
    for file, text in re.findall(r"(?ms)^## (\S+)\n\n```python\n(.*?)^```", page):
        there = project / file
        # The roles are enums, too; all of the project's are in one file.
        there.write_text(there.read_text() + text.partition("StrEnum\n")[2] if there.exists() else text)
    register(project, PURCHASES)
    change(project / "tests/app/resources.py", lambda text: text.replace("    # A GET", f"{RESOURCES}    # A GET"))
    change(project / "app/tags.py", lambda text: f'{text}PURCHASE = Tag("purchase:{{id}}")\n')
    tidy(project)


def remove(project: Path, name: str) -> None:
    """What is not committed could not be undone, so it is refused."""
    identity = ["-c", "user.name=Ada Lovelace", "-c", "user.email=ada@example.com"]
    subprocess.run(["git", "add", "--all"], cwd=project, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--message=Change"], cwd=project, check=True)
    app(project, f"app remove {name}")


def register(project: Path, names: dict[str, str]) -> None:
    """Add the lines that a resource has beside its files, after those of the categories."""
    one, many = names["category"], names["categories"]
    change(project / "app/models/__init__.py", with_imports(names), listed('"Category",', f' "{one.capitalize()}",'))
    change(project / "app/routers/__init__.py", listed("categories,", f" {many},"))
    change(project / "app/routers/__init__.py", listed("categories.router,", f" {many}.router,"))
    change(project / "app/dependencies.py", with_imports(names), with_definitions(names))
    change(project / "app/tags.py", with_definitions(names))
    for table in ("test_round_trips", "test_access"):
        change(project / f"tests/app/{table}.py", with_endpoints(names))


def tidy(project: Path) -> None:
    """As an editor does on saving: sort what was inserted, drop imports that the fields do not need."""
    for command in (["check", "--select=I,F401,RUF022", "--fix", "--quiet"], ["format", "--quiet"]):
        subprocess.run([".venv/bin/ruff", *command, "app", "tests"], cwd=project, check=True)


def renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        for form in (str.lower, str.upper, str.capitalize):
            text = text.replace(form(old), form(new))
    return text


def change(file: Path, *changes: Callable[[str], str]) -> None:
    text = file.read_text()
    for each in changes:
        changed = each(text)
        assert changed != text, f"{file.name} has nothing of categories that could be followed"
        text = changed
    file.write_text(text)


def listed(after: str, new: str) -> Callable[[str], str]:
    """Adds an element to a list; `tidy` puts it in its place."""
    return lambda text: text.replace(after, after + new, 1)


def with_imports(names: dict[str, str]) -> Callable[[str], str]:
    return repeated(r"(?m)^from app\.\w+\.categories import (\([^)]*\)|.*)\n", names)


def with_definitions(names: dict[str, str]) -> Callable[[str], str]:
    """Repeats each provider, and each name that is assigned in one line."""
    provider = r"^async def get_categor(?:.|\n)*?\n\n\n"
    return repeated(rf"(?m){provider}|^(?i:categor).* = .*\n", names)


def with_endpoints(names: dict[str, str]) -> Callable[[str], str]:
    return repeated(r'(?m)^    \("\w+", "/api/categories.*\n', names)


def repeated(pattern: str, names: dict[str, str]) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, lambda found: found[0] + renamed(found[0], names), text)


if __name__ == "__main__":
    sys.exit(main())
