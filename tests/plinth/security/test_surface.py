"""What the service's code does not do at all, found in its syntax trees and its routes."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from app.dependencies import get_session
from app.main import create_app
from plinth.http.docs import openapi

ROOT = Path(__file__).resolve().parents[3]
# Commands, code that was text, formats that make any object or fetch others, cookies, and ciphers.
DANGEROUS = re.compile(
    r"(subprocess|pickle|marshal|shelve|xml|lxml|yaml)(\..*)?"
    r"|os\.(system|popen|exec|spawn|posix_spawn)\w*|asyncio\.create_subprocess_\w+"
    r"|eval|exec|compile|__import__"
    r"|.*\bset_cookie|.*\bSessionMiddleware|fastapi\.Cookie"
    r"|.*\bciphers(\..*)?"
)
# The command line starts Python, and py-spy: tools, a server, workers. Nothing of a request is in their arguments.
ALLOWED = {
    ("plinth/cli.py", "subprocess"),
    ("plinth/cli.py", "subprocess.run"),
    ("plinth/cli.py", "os.execv"),
    ("plinth/jobs/processes.py", "asyncio.create_subprocess_exec"),
    ("plinth/jobs/processes.py", "os.execve"),
    ("plinth/telemetry/cli.py", "subprocess"),
    ("plinth/telemetry/cli.py", "subprocess.run"),
}
HASHES = {"sha256", "blake2b"}
SECRET = re.compile(r"(?i)token|secret|password|key|session|code|authorization|credential")


def used(source: str) -> Iterator[str]:
    """What is imported and what is called, by its whole name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def all_used() -> Iterator[tuple[str, str]]:
    for folder in ("app", "plinth"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("plinth/testing/"):
                yield from ((name, each) for each in used(path.read_text()))


def test_no_command_is_run_no_text_is_executed_and_no_cookie_is_set() -> None:
    assert {(file, name) for file, name in all_used() if DANGEROUS.fullmatch(name)} == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from xml.etree import ElementTree",
        "subprocess.run('ls')",
        "os.system('ls')",
        "os.execvp('ls', [])",
        "eval('1')",
        "response.set_cookie('a')",
        "from cryptography.hazmat.primitives.ciphers import modes",
    ],
)
def test_it_would_be_found(source: str) -> None:
    assert [name for name in used(source) if DANGEROUS.fullmatch(name)]


def test_hashes_are_those_that_are_approved() -> None:
    found = {match[1] for _, name in all_used() if (match := re.match(r"hashlib\.(\w+)", name))}
    assert found == HASHES


def calls(dependant: Dependant) -> Iterator[Callable[..., Any] | None]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from calls(each)


def test_no_get_has_a_transaction_in_which_it_could_change_something() -> None:
    with_one = {True: 0, False: 0}
    for route in iter_route_contexts(create_app().routes):
        if isinstance(route.original_route, APIRoute):
            is_read = route.methods == {"GET"}
            has_session = get_session in {*calls(route.original_route.dependant)}
            assert not (is_read and has_session), route.path
            with_one[has_session] += 1
    assert with_one[True] > 20


def test_no_secret_is_a_part_of_a_url() -> None:
    names = {
        parameter["name"]
        for path in openapi(create_app())["paths"].values()
        for operation in path.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] in {"query", "path"}
    }
    assert "id" in names
    assert {name for name in names if SECRET.search(name)} == set()
