"""What plinth promises to keep: its public names, their parameters and members, one a line in public_names.txt.

`.venv/bin/python -m tests.plinth.public_names` records what was added. What is gone, or takes less than before, must
have been deprecated in an earlier version: `typing_extensions.deprecated` marks it, and the record says since when.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

from pydantic import BaseModel
from typing_extensions import is_protocol

from plinth.testing.environment import ROOT

RECORD = Path(__file__).with_name("public_names.txt")
VERSION = re.findall(r"(?m)^## (\S+)", (ROOT / "plinth/CHANGELOG.md").read_text())[0]


class Name(NamedTuple):
    name: str
    kind: str
    """`(a, b=..., *, c)`, before it "async" for a coroutine function; empty for what is not called."""
    deprecated_in: str = ""

    def __str__(self) -> str:
        mark = f"  # deprecated in {self.deprecated_in}" if self.deprecated_in else ""
        return f"{self.name} {self.kind}".strip() + mark


def recorded() -> dict[str, Name]:
    found = {}
    for line in RECORD.read_text().splitlines() if RECORD.exists() else ():
        text, _, version = line.partition("  # deprecated in ")
        name, _, kind = text.partition(" ")
        found[name] = Name(name, kind, version)
    return found


def current(before: dict[str, Name]) -> dict[str, Name]:
    """What the packages of plinth list, what the files of a project import from it, and what of `before` is there."""
    names = {(name.rpartition(".")[0], name.rpartition(".")[2]) for name in before}
    for path in [*(ROOT / "plinth").glob("*.py"), *(ROOT / "plinth").glob("*/__init__.py")]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        names |= {(module, name) for name in getattr(import_module(module), "__all__", ())}
    for path in [*(ROOT / "app").rglob("*.py"), *(ROOT / "tests/app").rglob("*.py"), ROOT / "migrations/env.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plinth."):
                names |= {(str(node.module), alias.name) for alias in node.names}
    found: dict[str, Name] = {}
    for module, name in sorted(names):
        try:
            value = getattr(import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue  # it is gone, or a member of a class
        for each in described(f"{module}.{name}", value):
            known = before.get(each.name)
            found[each.name] = each._replace(deprecated_in=(known.deprecated_in if known else "") or each.deprecated_in)
    return found


def described(name: str, value: Any) -> Iterator[Name]:
    """The name itself and, for a class, the members that plinth gives it."""
    yield Name(name, kind_of(value), since(value))
    members = {
        each for base in of_plinth(value) for each in [*inspect.get_annotations(base), *vars(base), *assigned(base)]
    }
    pydantic = dir(BaseModel) if is_model(value) else []
    for member in sorted(each for each in members.difference(pydantic) if not each.startswith("_")):
        found = getattr(value, member, None)
        yield Name(f"{name}.{member}", kind_of(found), since(found))


def since(value: Any) -> str:
    return VERSION if hasattr(value, "__deprecated__") else ""


def of_plinth(value: Any) -> list[type]:
    return [each for each in getattr(value, "__mro__", ()) if each.__module__.startswith("plinth.")]


def is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def assigned(base: type) -> Iterator[str]:
    """The attributes that the constructor sets; those of middleware are its own affair."""
    constructor = vars(base).get("__init__")
    if inspect.isfunction(constructor) and not is_dataclass(base) and not base.__name__.endswith("Middleware"):
        for node in ast.walk(ast.parse(dedent(inspect.getsource(constructor)))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) == "self"
            ):
                yield node.attr


def kind_of(value: Any) -> str:
    if isinstance(value, type):
        constructed = any({"__init__", "__new__"} & vars(base).keys() for base in of_plinth(value))
        is_called = constructed and not is_model(value) and not is_protocol(value)
    else:
        is_called = inspect.isroutine(value) and callable(value)
    if not is_called:
        return ""
    parameters = [
        each.replace(annotation=each.empty, default=each.default if each.default is each.empty else ...)
        for each in inspect.signature(value).parameters.values()
    ]
    text = str(inspect.Signature(parameters)).replace("=Ellipsis", "=...")
    return f"async {text}" if inspect.iscoroutinefunction(value) else text


def broken(before: dict[str, Name], after: dict[str, Name]) -> Iterator[str]:
    """A sentence for each name that is gone or takes less, unless an earlier version has deprecated it."""
    for name, old in before.items():
        if old.deprecated_in and old.deprecated_in != VERSION:
            continue
        new = after.get(name)
        if new is None:
            yield f"{name} is gone."
        elif bool(new.kind) != bool(old.kind) or new.kind.startswith("async") != old.kind.startswith("async"):
            yield f"{name} is of another kind: {new.kind or 'not called'}; it was {old.kind or 'not called'}."
        elif not accepts(new.kind, old.kind):
            yield f"{name} takes less than before: {new.kind}; it was {old.kind}."


def accepts(new: str, old: str) -> bool:
    """Whether the calls that fit the old parameters give the new ones the same values, by position and by name."""
    after, before = (inspect.signature(eval(f"lambda {each.removeprefix('async ')[1:-1]}: 0")) for each in (new, old))
    try:
        return all(
            after.bind(*args, **named).arguments == before.bind(*args, **named).arguments
            for args, named in calls(before)
        )
    except TypeError:
        return False


def calls(signature: inspect.Signature) -> Iterator[tuple[list[str], dict[str, str]]]:
    """With the required arguments and with all, as many as possible by position and as many as possible by name."""
    everything = [*signature.parameters.values()]
    for kept in ([each for each in everything if each.default is each.empty], everything):
        first = [each.name for each in kept if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
        named = [each.name for each in kept if each.kind in {each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD}]
        more = [each.name for each in kept if each.kind is each.VAR_POSITIONAL]
        others = [each.name for each in kept if each.kind is each.VAR_KEYWORD]
        yield [*first, *more], {each: each for each in [*named, *others] if each not in first}
        yield [each for each in first if each not in named], {each: each for each in [*named, *others]}


def record() -> None:
    before = recorded()
    after = current(before)
    if found := [*broken(before, after)]:
        sys.exit("\n".join(["These changes would break those who use plinth:", *found]))
    RECORD.write_text("".join(f"{each}\n" for each in after.values()))


if __name__ == "__main__":
    record()
