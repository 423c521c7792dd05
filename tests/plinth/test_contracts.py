"""The contracts of plinth with its users and its libraries: what it offers, and what it does not touch.

import-linter (`make check`) keeps the rules between packages; what it cannot see is tested here.
"""

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from plinth.testing.environment import ROOT
from tests.plinth.library_rules import findings

PAGE = (ROOT / "plinth/README.md").read_text()
MOST_NAMES = 137
MOST_LINES = 200
CAPABILITIES = sorted(
    path.parent.name for path in (ROOT / "plinth").glob("*/__init__.py") if path.parent.name != "testing"
)
MODULES = ["cli", "errors", "settings"]
CHECKED = [
    *(
        path
        for folder in ("app", "plinth", "tools", "benchmarks", "migrations")
        for path in (ROOT / folder).rglob("*.py")
    ),
    ROOT / "gunicorn.conf.py",
]
EXCEPTIONS = {
    row[0] for row in re.findall(r"^\| `(plinth/[\w/]+\.py)` \| (.+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
}


def documented(module: str) -> list[tuple[str, str, str]]:
    """The rows of a module's table: name, meaning, example."""
    section = PAGE.partition(f"\n## {module}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 for row in rows), rows
    return [(name.strip(" `"), meaning.strip(), example.strip(" `")) for name, meaning, example in rows]


@pytest.mark.parametrize("name", [*CAPABILITIES, *MODULES])
def test_the_page_lists_every_public_name(name: str) -> None:
    module = import_module(f"plinth.{name}")
    assert [row[0] for row in documented(module.__name__)] == [
        *dict.fromkeys(row[0] for row in documented(module.__name__))
    ]
    assert {row[0] for row in documented(module.__name__)} == set(module.__all__)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", [*CAPABILITIES, *MODULES])
def test_every_name_has_a_meaning_and_an_example(name: str) -> None:
    for public, meaning, example in documented(f"plinth.{name}"):
        assert meaning, public
        assert public in example, f"{example} shows no {public}"
        ast.parse(f"{example}\ndef f(): ..." if example.startswith("@") else example)


def test_there_are_not_too_many_names() -> None:
    assert sum(len(documented(f"plinth.{name}")) for name in [*CAPABILITIES, *MODULES]) <= MOST_NAMES


def test_no_module_is_too_long() -> None:
    modules = [path for folder in ("app", "plinth") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    del lengths["app/dependencies.py"]  # a list, which grows with the resources
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_libraries_are_used_as_documented() -> None:
    found = {str(path.relative_to(ROOT)): findings(path.read_text()) for path in CHECKED}
    broken = {name: each for name, each in found.items() if each}
    assert {name: each for name, each in broken.items() if name not in EXCEPTIONS} == {}
    assert EXCEPTIONS - broken.keys() == set(), "strike these from the table in plinth/README.md"


def test_ruff_is_silent_about_the_same_modules_only() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "SLF" in lint["select"]
    silent = {pattern for pattern, rules in lint["per-file-ignores"].items() if {"SLF", "SLF001"} & {*rules}}
    assert silent - {"tests/**", "tests/**/conftest.py"} <= EXCEPTIONS


@pytest.mark.parametrize(
    "source",
    [
        "from fastapi._compat import ModelField",
        "from fastapi import _compat",
        "import uvicorn._types",
        "import asyncio\nloop = asyncio._get_running_loop()",
        "def f(field): return field._type_adapter",
        "import json\njson.loads = print",
        "import json as parser\ndel parser.loads",
        "from fastapi import FastAPI\nFastAPI.openapi = None",
        "from fastapi import FastAPI\napp = FastAPI()\napp.router.lifespan_context = None",
        "from fastapi import FastAPI\nasync def f(app: FastAPI) -> None:\n    app.openapi = None",
        "import fastapi\ndef f() -> None:\n    def g(*, app: fastapi.FastAPI) -> None:\n        app.openapi += 1",
        "from typing import Any\ndef f(arbiter: Any) -> None:\n    arbiter.stop, arbiter.run = 1, 2",
        "from uvicorn import Server\nsetattr(Server, 'serve', None)",
    ],
)
def test_what_reaches_into_a_library_is_found(source: str) -> None:
    assert len(findings(source)) in {1, 2}


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "from plinth.http.errors import _pointer",
        "class A:\n    def __init__(self) -> None:\n        self._b = self._c = 1",
        "class A:\n    _b = 1\n    def f(self, cls) -> int:\n        return A._b + super()._c + cls._d",
        "def f(row): return row._asdict()",
        "import json\ndef f(json) -> None:\n    json.loads = print",
        "from fastapi import FastAPI\napp = FastAPI()\napp.state.draining = False",
        "from app.settings import Settings\ndef f(settings: Settings) -> None:\n    settings.port = 1",
        "from collections.abc import Callable\ndef f(endpoint: Callable[..., int]) -> None:\n    endpoint.limit = 1",
        "class A:\n    def f(self) -> None:\n        self.app.openapi = None",
    ],
)
def test_what_is_allowed_is_not_found(source: str) -> None:
    assert findings(source) == []


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_service_imports_public_names_only(path: Path) -> None:
    """Of a capability, what its package lists: a module inside of it may change with every update."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names if alias.name.startswith("plinth.")]
            assert {name.partition(".")[2] for name in paths} <= {*MODULES}, "import the names that you use"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "plinth":
            module = node.module or ""
            assert module.partition(".")[2] in {*CAPABILITIES, *MODULES}, f"{module} is no public module"
            assert {alias.name for alias in node.names} <= set(import_module(module).__all__), module
