"""Revisions of the database as text: what follows what, and one that is put on top of the others.

Needs nothing but the standard library, as `make update` does.
"""

import ast
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from plinth.testing.locks import SetupError

FOLDER = "migrations/versions/"
STAMP = "%Y_%m_%d_%H%M"  # as in alembic.ini
STAMP_LENGTH = len("2026_11_28_2030")


class Revision(NamedTuple):
    path: str
    text: str
    id: str
    follows: tuple[str, ...]


def revisions(texts: Mapping[str, str]) -> Iterator[Revision]:
    """Those of the files, by path, that are revisions."""
    for path, text in texts.items():
        try:
            values = {name: value for each in ast.parse(text).body for name, value in _assigned(each)}
        except SyntaxError as error:
            raise SetupError(f"{path} cannot be read: line {error.lineno} is no Python.") from None
        if isinstance(id := values.get("revision"), str):
            before = values.get("down_revision") or ()
            yield Revision(path, text, id, (before,) if isinstance(before, str) else tuple(before))


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, Any]]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in targets:
        if isinstance(target, ast.Name) and target.id in {"revision", "down_revision"}:
            yield target.id, ast.literal_eval(getattr(statement, "value", None) or "None")


def head(all_of_them: Iterable[Revision]) -> str | None:
    """The newest revision. Raises SetupError if there are several that none follows."""
    known = [*all_of_them]
    followed = {id for each in known for id in each.follows}
    heads = sorted(each.id for each in known if each.id not in followed)
    if len(heads) > 1:
        raise SetupError(
            f"{FOLDER} has several newest revisions, {' and '.join(heads)}: join them by `alembic merge heads`, "
            "commit, and run this again."
        )
    return heads[0] if heads else None


def on_top(revision: Revision, others: Iterable[Revision]) -> tuple[str, str]:
    """The path and the text of a revision that follows the newest of the others. Its id stays."""
    others = [*others]
    newest = head(others)
    follows = f'"{newest}"' if newest else "None"
    text, count = re.subn(r"(?m)^(down_revision\b[^=\n]*= *).*$", rf"\g<1>{follows}", revision.text)
    if count != 1:
        raise SetupError(f"{revision.path} has no line `down_revision = …` of its own.")
    text = re.sub(r"(?m)^Revises:.*$", f"Revises: {newest or ''}".rstrip(), text, count=1)
    names = [each.path.removeprefix(FOLDER) for each in others]
    return FOLDER + in_order(revision.path.removeprefix(FOLDER), names), text


def missing(wanted: Iterable[Revision], mine: Iterable[Revision]) -> Iterator[tuple[str, str]]:
    """Path and text of each wanted one that a project lacks, on top of its own and of one another.

    It has those whose id it has, and those whose tables one of its own creates.
    """
    known = [*mine]
    for each in wanted:
        tables = created(each.text)
        if not any(each.id == other.id or (tables and tables <= created(other.text)) for other in known):
            path, text = on_top(each, known)
            known += revisions({path: text})
            yield path, text


def undoing(id: str, all_of_them: Iterable[Revision], name: str) -> tuple[str, str]:
    """The path and the text of a revision `name` that does what the downgrade of an older one does."""
    known = [*all_of_them]
    undone = next((each for each in known if each.id == id), None)
    if undone is None:
        raise SetupError(f"{FOLDER} has no revision {id}, which created the tables; write the migration by hand.")
    head_, up, down = re.split(r"(?m)^(?=def (?:upgrade|downgrade)\b)", undone.text)
    text = head_ + down.replace("downgrade", "upgrade", 1).rstrip() + "\n\n\n"
    text += up.replace("upgrade", "downgrade", 1).rstrip() + "\n"
    new = secrets.token_hex(6)
    text = re.sub(r'\A"""[^\n"]*', f'"""{name}', text).replace(id, new)
    path = f"{FOLDER}{datetime.now(UTC):{STAMP}}-{name.replace(' ', '_')}.py"
    return on_top(Revision(path, text, new, ()), known)


def in_order(name: str, others: Iterable[str]) -> str:
    """A revision's name, with its minute moved behind the newest of the others if that is later: files go by date."""
    newest = max((each for each in others if _minute(each)), default="")
    if name > newest:
        return name
    rest = name[STAMP_LENGTH:]
    minute = _minute(newest) or datetime.now(UTC)
    if (same := f"{minute:{STAMP}}{rest}") > newest:
        return same
    return f"{minute + timedelta(minutes=1):{STAMP}}{rest}"


def _minute(name: str) -> datetime | None:
    try:
        return datetime.strptime(name[:STAMP_LENGTH], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def created(text: str) -> set[str]:
    """The tables that the SQL of a revision creates."""
    return set(re.findall(r"(?i)\bCREATE TABLE (?:IF NOT EXISTS )?([\w.]+)", text))
