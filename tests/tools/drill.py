"""`make drill`: a fresh clone of HEAD becomes a project of its own, gets two resources, and loses the example.

After each step it passes checks and tests. The resources are made as the README's recipe says. The five files of the
suppliers are derived from the categories', by name and field; those of the orders, which refer to them, are in
orders.md.
"""

import os
import re
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
SUPPLIERS = {"categories": "suppliers", "category": "supplier"}
ORDERS = {"categories": "orders", "category": "order"}
# Each line of the left kind becomes those on the right.
FIELDS = {
    r"    description: Mapped\[str\].*": "    email: Mapped[str] = mapped_column(String(254))\n    rating: Mapped[int]",
    r"Description = .*": "Rating = Annotated[Count, Field(ge=1, le=5)]",
    r"from app\.schemas\.types import .*": "from app.schemas.types import Count, Email, VisibleText",
    r'    description: Description = ""': "    email: Email\n    rating: Rating",
    r"    description: Description \| MISSING = MISSING": (
        "    email: Email | MISSING = MISSING\n    rating: Rating | MISSING = MISSING"
    ),
    r"    description: str": "    email: str\n    rating: int",
}
RESOURCES = """\
    Resource("/api/suppliers", create={"name": "Supplier {n}", "email": "sales@example.com", "rating": 4}),
    Resource(
        "/api/orders", create={"number": "A-{n}", "supplier_id": 1, "due_on": "2026-12-24", "total": "{n}.00"}
    ),
"""
TESTS = """from typing import Any

import pytest
from httpx import AsyncClient

DATA = {"name": "Acme", "email": "sales@example.com", "rating": 4}


@pytest.fixture
async def supplier(client: AsyncClient) -> dict[str, Any]:
    answer = await client.post("/api/suppliers", json=DATA)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_created_supplier_can_be_read(client: AsyncClient, supplier: dict[str, Any]) -> None:
    assert supplier.items() >= DATA.items()
    assert (await client.get(f"/api/suppliers/{supplier['id']}")).json() == supplier
    assert (await client.get("/api/suppliers")).json()["items"] == [supplier]


async def test_a_change_is_seen_at_once(client: AsyncClient, supplier: dict[str, Any]) -> None:
    path = f"/api/suppliers/{supplier['id']}"
    etag = (await client.get(path)).headers["ETag"]
    changed = await client.patch(path, json={"rating": 5}, headers={"If-Match": etag})
    assert (changed.status_code, changed.json()["rating"]) == (200, 5)
    assert (await client.get(path)).json() == changed.json()
    assert (await client.patch(path, json={"rating": 1}, headers={"If-Match": etag})).status_code == 412


async def test_a_deleted_supplier_is_gone(client: AsyncClient, supplier: dict[str, Any]) -> None:
    path = f"/api/suppliers/{supplier['id']}"
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_a_name_that_is_taken_is_409(client: AsyncClient, supplier: dict[str, Any]) -> None:
    assert (await client.post("/api/suppliers", json=DATA)).status_code == 409


@pytest.mark.parametrize("wrong", [{"rating": 6}, {"email": "nowhere"}, {"name": ""}])
async def test_what_is_wrong_is_422(client: AsyncClient, wrong: dict[str, Any]) -> None:
    assert (await client.post("/api/suppliers", json=DATA | wrong)).status_code == 422
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="drill-") as directory:
        project = Path(directory, "project")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
        make(project, "init", "NAME=Billing API", "AUTHOR=Ada Lovelace")
        make(project, "check")
        make(project, "test")
        add_suppliers(project)
        add_orders(project)
        make(project, "migration", "NAME=create suppliers and orders")
        make(project, "check")
        make(project, "test-app")
        remove_example(project)
        make(project, "check")
        make(project, "test-app")
    return 0


def make(project: Path, *arguments: str) -> None:
    """Without a terminal, and without what an outer make or the settings of this shell would change."""
    dropped = variables(Settings).keys() | {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    began = time.monotonic()
    print(f"\n$ make {' '.join(arguments)}", flush=True)
    subprocess.run(["make", *arguments], cwd=project, env=environment, stdin=subprocess.DEVNULL, check=True)
    print(f"(in {time.monotonic() - began:.0f} s)", flush=True)


def add_suppliers(project: Path) -> None:
    lines = 0
    for layer in LAYERS:
        text = with_fields(renamed((project / f"app/{layer}/categories.py").read_text(), SUPPLIERS))
        (project / f"app/{layer}/suppliers.py").write_text(text)
        lines += text.count("\n")
    print(f"\nThe five files of suppliers have {lines} lines; {MOST_LINES} are allowed.")
    assert lines <= MOST_LINES
    (project / "tests/app/routers/test_suppliers.py").write_text(TESTS)
    register(project, SUPPLIERS)
    change(project / "tests/app/resources.py", listed("Resources(\n", RESOURCES))
    tidy(project)


def add_orders(project: Path) -> None:
    page = (ROOT / "tests/tools/orders.md").read_text()
    for file, text in re.findall(r"(?ms)^## (\S+)\n\n```python\n(.*?)^```", page):
        (project / file).write_text(text)
    register(project, ORDERS)
    change(project / "app/tags.py", lambda text: f'{text}ORDER = Tag("order:{{id}}")\n')
    tidy(project)


def remove_example(project: Path) -> None:
    """What is not committed could not be undone, so it is refused."""
    identity = ["-c", "user.name=Ada Lovelace", "-c", "user.email=ada@example.com"]
    subprocess.run(["git", "add", "--all"], cwd=project, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--message=Add resources"], cwd=project, check=True)
    print("\n$ app remove example", flush=True)
    subprocess.run([".venv/bin/python", "-m", "tools.remove", "example"], cwd=project, check=True)


def register(project: Path, names: dict[str, str]) -> None:
    """Add the lines that a resource has beside its files, after those of the categories."""
    one, many = names["category"], names["categories"]
    change(project / "app/models/__init__.py", with_imports(names), listed('"Category", ', f'"{one.capitalize()}", '))
    change(project / "app/routers/__init__.py", listed("categories, ", f"{many}, "))
    change(project / "app/routers/__init__.py", listed("categories.router, ", f"{many}.router, "))
    change(project / "app/dependencies.py", with_imports(names), with_definitions(names))
    change(project / "app/tags.py", with_definitions(names))
    change(project / "tests/app/test_round_trips.py", with_round_trips(names))


def tidy(project: Path) -> None:
    """As an editor does on saving: sort what was inserted, drop imports that the fields do not need."""
    for command in (["check", "--select=I,F401,RUF022", "--fix", "--quiet"], ["format", "--quiet"]):
        subprocess.run([".venv/bin/ruff", *command, "app", "tests"], cwd=project, check=True)


def renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        for form in (str.lower, str.upper, str.capitalize):
            text = text.replace(form(old), form(new))
    return text


def with_fields(text: str) -> str:
    for pattern, lines in FIELDS.items():
        text = re.sub(rf"(?m)^{pattern}$", lambda _, lines=lines: lines, text)  # type: ignore[misc]
    assert not re.search(r"(?m)^ +description:", text), text
    return text


def change(file: Path, *changes: Callable[[str], str]) -> None:
    text = file.read_text()
    for each in changes:
        changed = each(text)
        assert changed != text, f"{file.name} has nothing of categories that could be followed"
        text = changed
    file.write_text(text)


def listed(after: str, new: str) -> Callable[[str], str]:
    """Adds an element to a list that is written on one line."""
    return lambda text: text.replace(after, after + new, 1)


def with_imports(names: dict[str, str]) -> Callable[[str], str]:
    return repeated(r"(?m)^from app\.\w+\.categories import (\([^)]*\)|.*)\n", names)


def with_definitions(names: dict[str, str]) -> Callable[[str], str]:
    """Repeats each provider, and each name that is assigned in one line."""
    provider = r"^async def get_categor(?:.|\n)*?\n\n\n"
    return repeated(rf"(?m){provider}|^(?i:categor).* = .*\n", names)


def with_round_trips(names: dict[str, str]) -> Callable[[str], str]:
    return repeated(r'(?m)^    \("\w+", "/api/categories.*\n', names)


def repeated(pattern: str, names: dict[str, str]) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, lambda found: found[0] + renamed(found[0], names), text)


if __name__ == "__main__":
    sys.exit(main())
