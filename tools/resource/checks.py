"""Whether there can be such a resource in this project. Each check raises SetupError, which says what to do."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.resource.blocks import BLOCKS, REQUEST_TYPES, Resource
from tools.resource.layers import source
from tools.resource.parsing import check_identifier, check_name, parse, singular_of

LISTS = {"sort", "limit", "cursor", "total", "cursor_id"}  # what is never the name of a filter
LONGEST_IDENTIFIER = 63  # of PostgreSQL


def requested(plural: str, singular: str | None, specifications: Sequence[str]) -> Resource:
    """Raises SetupError for what cannot be a resource."""
    plural = plural.replace("-", "_")
    check_name(plural, "resource")
    check_identifier(plural, "resource")
    singular = singular.replace("-", "_") if singular else singular_of(plural)
    if singular is None:
        raise SetupError(f"{plural} has no singular that could be guessed. Add --singular=…")
    check_name(singular, "resource")
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


def check_clashes(resource: Resource, root: Path) -> None:
    for field in resource.fields:
        if field.target and not field.is_self and not (root / f"app/models/{field.target}.py").exists():
            raise SetupError(f"{field.name} refers to {field.target}, which is no resource. Add that one first.")
        if field.enum and re.search(rf"\bclass {field.enum_class}\b", _read(root / "app/enums.py")):
            raise SetupError(f"app/enums.py has a class {field.enum_class} already. Rename {field.name}.")
    used = {name for layer in BLOCKS for name in _identifiers(source(layer))}
    used |= set(re.findall(r"\w+", _read(root / "app/tags.py") + _read(root / "app/models/__init__.py")))
    for name in (resource.plural, resource.singular, resource.plural.upper(), resource.class_name):
        if name in used:
            raise SetupError(f"{resource.plural} is no name for a resource, because the code uses {name}. Rename it.")
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
