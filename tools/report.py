"""What `make update` prints at its end."""

import ast
import re
from collections.abc import Iterable, Iterator
from difflib import unified_diff
from pathlib import Path

from tools.merge import Update
from tools.trees import Tree

CHANGELOG, SETTINGS = "plinth/CHANGELOG.md", ".env.example"
# Where a new capability has lines.
SHOWN = (
    *(f"app/{name}.py" for name in ("main", "dependencies", "settings", "tags", "cli")),
    "app/models/__init__.py",
    "app/routers/__init__.py",
)
SETTING = re.compile(r"(?m)^#?\s*(?:export\s+)?([A-Z][A-Z0-9_]*)=")
NEXT = ["make environment", "make check", "make test", "git diff", "git commit"]


def print_report(root: Path, update: Update, recorded: Tree, new: Tree, version: str) -> None:
    sections = {
        "Changes in plinth": changelog(_text(recorded, CHANGELOG), _text(new, CHANGELOG)),
        "Settings": settings(root, update, recorded, new),
        "Merged": update.merged,
        "You deleted these, and the new version changed them. They stay deleted": update.kept_away,
        "Added, for tables of plinth's": update.revisions,
        "These are yours and stay as they are; the new version has changed its own": [
            path for path in update.offered if path in recorded
        ],
        f"New files of it, which you may copy; they are in {version}": [
            path for path in update.offered if path not in recorded
        ],
        "Lines that you may want from it": _lines(update.offered, recorded, new),
        "Conflicts": [f"{path}: {each}" for path, hunks in update.conflicts.items() for each in hunks],
        "What to run": _next(update),
    }
    for heading, lines in sections.items():
        if shown := [*lines]:
            print(f"\n{heading}:", *(f"  {line}" for line in shown), sep="\n")
    print()


def changelog(before: str, after: str) -> Iterator[str]:
    """The entries of the new changelog that the recorded one lacks, below their versions."""
    known = {_joined(entry) for entry in _entries(before)}
    heading = ""
    for entry in _entries(after):
        if entry.startswith("## "):
            heading = entry[3:].strip()
        elif _joined(entry) not in known:
            if heading:
                yield heading
            heading = ""
            yield from entry.rstrip().splitlines()


def settings(root: Path, update: Update, recorded: Tree, new: Tree) -> Iterator[str]:
    """Variables that are new or gone, and those of `.env` that neither .env.example nor Compose has."""
    before, after = (set(SETTING.findall(_text(tree, SETTINGS))) for tree in (recorded, new))
    for name in sorted(after - before):
        yield f"{name} is new"
    for name in sorted(before - after):
        yield f"{name} is gone"
    env = root / ".env"
    given = set(SETTING.findall("\n".join(_set(env)))) if env.is_file() else set()
    merged = update.changes.get(SETTINGS)
    mine = merged.data.decode(errors="replace") if merged else _file(root / SETTINGS)
    known = set(SETTING.findall(mine)) - (before - after)
    for file in sorted(root.glob("docker-compose*.yml")):
        known |= set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", _file(file)))
    for name in sorted(given - known):
        yield f"{name} is in .env, and neither {SETTINGS} nor the Compose files have it"


def _set(env: Path) -> Iterator[str]:
    return (line.strip() for line in _file(env).splitlines() if not line.lstrip().startswith("#"))


def _lines(offered: Iterable[str], recorded: Tree, new: Tree) -> Iterator[str]:
    """The changes of these files, and of those from which they import something more."""
    changed = {path for path in offered if path in recorded}
    shown = [path for path in SHOWN if path in changed]
    for path in shown:
        before, after = (_text(tree, path) for tree in (recorded, new))
        yield from unified_diff(before.splitlines(), after.splitlines(), fromfile=path, tofile=path, n=1, lineterm="")
        imported = dict.fromkeys(f"{module.replace('.', '/')}.py" for module in _more_imports(before, after))
        shown += [each for each in imported if each in changed and each not in shown]


def _more_imports(before: str, after: str) -> list[str]:
    """The modules of which the second text of a module imports more names than the first."""
    return [module for module, names in _imports(after).items() if names - _imports(before).get(module, set())]


def _imports(text: str) -> dict[str, set[str]]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module]
    return {str(node.module): {alias.name for alias in node.names} for node in nodes}


def _next(update: Update) -> Iterator[str]:
    if update.conflicts:
        yield "resolve the conflicts above, then `make update FINISH=1`"
    if any(path.startswith("requirements/") for path in [*update.merged, *update.conflicts]):
        yield "`make lock`, for packages are locked that you added (git checkout HEAD -- requirements/ ends conflicts)"
    yield ", ".join(f"`{command}`" for command in NEXT)
    if update.revisions:
        yield "`app migrate`, which creates the tables, where the service runs"


def _entries(text: str) -> list[str]:
    """Headings, and items with the lines that belong to them."""
    return re.findall(r"(?m)^(?:## .*|- .*(?:\n {2,}.*)*)", text)


def _joined(entry: str) -> str:
    return " ".join(entry.split())


def _text(tree: Tree, path: str) -> str:
    return tree[path].data.decode(errors="replace") if path in tree else ""


def _file(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
