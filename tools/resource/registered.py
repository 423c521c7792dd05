"""The lines that a resource has in files which others share: the tables of contents, its tags, what its tests send."""

import ast
import re
from collections.abc import Callable

from plinth.testing.locks import SetupError
from tools.resource.blocks import Resource
from tools.resource.fields import Field
from tools.resource.layers import rewritten

PROVIDERS = """\
async def get_category_reader(reads: ReadsDep) -> CategoryReader:
    return CategoryReader(CategoryQueries(reads))


async def get_category_service(session: SessionDep, invalidate: InvalidateDep) -> CategoryService:
    return CategoryService(CategoryRepository(session), invalidate)


"""
ALIASES = """\
CategoryReaderDep = Annotated[CategoryReader, Depends(get_category_reader)]
CategoryServiceDep = Annotated[CategoryService, Depends(get_category_service)]
"""
PROVIDER_IMPORTS = """\
from app.repositories.categories import CategoryQueries, CategoryRepository
from app.services.categories import CategoryReader, CategoryService
"""
ROUND_TRIPS = """\
    ("GET", "/api/categories"): READ,
    ("GET", "/api/categories/{id}"): READ,
    ("POST", "/api/categories"): CREATE,
    ("PUT", "/api/categories/{id}"): UPDATE,
    ("PATCH", "/api/categories/{id}"): UPDATE,
    ("DELETE", "/api/categories/{id}"): DELETE,
"""
WHO = """\
    ("GET", "/api/categories"): PUBLIC,
    ("GET", "/api/categories/{id}"): PUBLIC,
    ("POST", "/api/categories"): EDITORS,
    ("PUT", "/api/categories/{id}"): EDITORS,
    ("PATCH", "/api/categories/{id}"): EDITORS,
    ("DELETE", "/api/categories/{id}"): EDITORS,
"""
UNCHANGED = "UPDATE - 1,  # sent again, the same references change nothing"
HEALTH = '    ("GET", "/health/live")'
ENUMS = '''"""The enums of columns, which requests and responses have too."""

from enum import StrEnum
'''


def registered(resource: Resource, texts: Callable[[str], str]) -> dict[str, str]:
    """The new text of each shared file by its path, before it is formatted. Raises SetupError where that fails."""

    def line(text: str) -> str:
        return rewritten(text, resource)

    trips = line(ROUND_TRIPS) if resource.varies else line(ROUND_TRIPS).replace("UPDATE,", UNCHANGED)
    changes: dict[str, Callable[[str], str]] = {
        "app/models/__init__.py": lambda text: _with_import(
            _after(r"(?m)^__all__ = \[", f'"{resource.class_name}", ', text),
            line("from app.models.categories import Category\n"),
        ),
        "app/routers/__init__.py": lambda text: _at_the_end_of(
            "ROUTERS", line("categories.router"), _after(r"from app\.routers import \(?", line("categories, "), text)
        ),
        "app/dependencies.py": lambda text: _before(
            "async def get_health_service(",
            line(PROVIDERS),
            _before("HealthServiceDep =", line(ALIASES), _with_import(text, line(PROVIDER_IMPORTS))),
        ),
        "app/tags.py": lambda text: _with_tag(text, line('CATEGORIES = Tag("categories")\n')),
        "tests/app/resources.py": lambda text: _with_entry(text, _entry(resource)),
        "tests/app/test_round_trips.py": lambda text: _before(HEALTH, trips, text),
    }
    if texts("tests/app/test_access.py"):  # which goes with the accounts
        changes["tests/app/test_access.py"] = lambda text: _before(HEALTH, line(WHO), text)
    if any(field.enum for field in resource.fields):
        changes["app/enums.py"] = lambda text: _with_enums(text, "".join(map(_enum, resource.fields)))
    result = {}
    for path, change in changes.items():
        try:
            result[path] = change(texts(path))
        except (LookupError, SyntaxError):
            raise SetupError(f"{path} is not written as it was: a resource's line finds no place in it.") from None
    return result


def _found(pattern: str, text: str) -> re.Match[str]:
    if (found := re.search(pattern, text)) is None:
        raise LookupError(pattern)
    return found


def _after(pattern: str, addition: str, text: str) -> str:
    end = _found(pattern, text).end()
    return text[:end] + addition + text[end:]


def _before(anchor: str, addition: str, text: str) -> str:
    """Before a line of the health checks, which every service has after its resources."""
    start = _found(f"(?m)^{re.escape(anchor)}", text).start()
    return text[:start] + addition + text[start:]


def _with_import(text: str, addition: str) -> str:
    """Before the first import of ours; ruff sorts them."""
    start = _found(r"(?m)^from (?:app|plinth)\.", text).start()
    return text[:start] + addition + text[start:]


def _at_the_end_of(name: str, item: str, text: str) -> str:
    """Of a tuple, but before the health checks."""
    found = _found(rf"(?m)^{name}\b[^\n]*= \(([^()]*)\)", text)
    items = [each.strip() for each in found[1].split(",") if each.strip()]
    items.insert(len(items) - (items[-1:] == ["health.router"]), item)
    return f"{text[: found.start(1)]}{', '.join(items)}{',' * (len(items) == 1)}{text[found.end(1) :]}"


def _with_tag(text: str, tag: str) -> str:
    needed = "" if re.search(r"(?m)^from plinth.cache import .*\bTag\b", text) else "\nfrom plinth.cache import Tag\n\n"
    return text + needed + tag


def _with_entry(text: str, entry: str) -> str:
    """After the last resource, since it may refer to those before. The first one needs its import."""
    if not re.search(r"(?m)^from plinth\.testing\.resources import .*\bResource\b", text):
        text = text.replace("from plinth.testing.resources import ", "from plinth.testing.resources import Resource, ")
    calls = (
        node.value for node in ast.parse(text).body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    )
    call = next((call for call in calls if ast.unparse(call.func) == "Resources"), None)
    if call is None:
        raise LookupError("Resources")
    last, addition = (call.args[-1], f", {entry}") if call.args else (call.func, f"({entry}, ")
    rows = text.encode().splitlines(keepends=True)
    offset = sum(map(len, rows[: (last.end_lineno or 1) - 1])) + (last.end_col_offset or 0)
    before, after = text.encode()[:offset].decode(), text.encode()[offset:].decode()
    return before + addition + (after if call.args else after.removeprefix("("))


def _with_enums(text: str, enums: str) -> str:
    """The first one needs the import, which is missing where the roles of accounts are gone, too."""
    if "import StrEnum" not in text:
        docstring = r'\A("""(?:.|\n)*?"""\n)?'
        text = re.sub(docstring, r"\g<0>\nfrom enum import StrEnum\n", text, count=1) if text else ENUMS
    return text + enums


def _entry(resource: Resource) -> str:
    body = ", ".join(f'"{field.column}": {field.sample}' for field in resource.fields)
    return f'Resource("/api/{resource.path}", create={{{body}}})'


def _enum(field: Field) -> str:
    members = "".join(f'    {label.upper().replace("-", "_")} = "{label}"\n' for label in field.labels)
    return f"\n\nclass {field.enum_class}(StrEnum):\n{members}" if field.labels else ""
