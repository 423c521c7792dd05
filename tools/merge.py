"""What an update changes in a project, computed from three trees before anything is written.

They are the recorded version and the new one, both with the project's names in them, and the project itself.
"""

import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.revisions import FOLDER, missing, revisions
from tools.trees import File, Tree

MARKS = ("<<<<<<< yours", "||||||| recorded", ">>>>>>> new")  # lines that begin so are left by an update


class Ownership:
    """The lists of ownership.toml."""

    def __init__(self, text: str) -> None:
        self.lists: Mapping[str, list[str]] = tomllib.loads(text)

    def owner(self, path: str) -> str:
        """The owner whose entry fits best; `yours` without one."""
        fitting = [
            (len(entry), owner)
            for owner, entries in self.lists.items()
            for entry in entries
            if path == entry or (entry.endswith("/") and path.startswith(entry))
        ]
        return max(fitting)[1] if fitting else "yours"


@dataclass
class Update:
    changes: dict[str, File | None] = field(default_factory=dict)  # None: the file is deleted
    edited: list[str] = field(default_factory=list)  # files of ours that differ from the recorded version
    merged: list[str] = field(default_factory=list)
    conflicts: dict[str, list[str]] = field(default_factory=dict)  # a sentence for each hunk
    kept_away: list[str] = field(default_factory=list)  # shared files that were deleted and changed in the template
    offered: list[str] = field(default_factory=list)  # files of the user's that the template has changed
    revisions: list[str] = field(default_factory=list)  # new ones, for tables of plinth's


def plan(ownership: Ownership, recorded: Tree, new: Tree, project: Tree) -> Update:
    update = Update()
    wanted: list[str] = []
    for path in sorted(recorded.keys() | new.keys()):
        before, after, mine = recorded.get(path), new.get(path), project.get(path)
        owner = ownership.owner(path)
        if owner == "yours":
            if before != after:
                update.offered.append(path)
        elif owner == "revisions":
            wanted += [path] if before is None else []
        elif owner == "ours":
            if mine and mine.kind == "obstacle":
                raise SetupError(f"{path} is plinth's, but a folder or a link stands in its place: move that away.")
            if mine not in (before, after):
                update.edited.append(path)
            if mine != after:
                update.changes[path] = after
        elif after not in (before, mine):  # otherwise the template changed nothing, or both changed the same
            _share(update, path, before, after, mine)
    if wanted:
        own = {path for path in project if path.startswith(FOLDER) and path.endswith(".py")}
        for path, text in missing(revisions(_texts(new, wanted)), revisions(_texts(project, own))):
            update.changes[path] = File(text.encode())
            update.revisions.append(path)
    return update


def _texts(tree: Tree, paths: Iterable[str]) -> dict[str, str]:
    return {path: tree[path].data.decode() for path in sorted(paths) if tree[path].kind != "obstacle"}


def _share(update: Update, path: str, before: File | None, after: File | None, mine: File | None) -> None:
    if mine == before:
        update.changes[path] = after
    elif mine is None:
        update.kept_away.append(path)
    elif mine.kind == "obstacle":
        update.conflicts[path] = ["a folder or a link stands where the new version has a file; it is left as it is"]
    elif before is None:
        update.conflicts[path] = ["the new version adds a file of this name; yours is left as it is"]
    elif after is None:
        update.conflicts[path] = ["the new version has no such file, and you changed it; yours is left as it is"]
    elif not all(map(_is_text, (before, after, mine))):
        update.conflicts[path] = ["you and the new version changed it, and it is no text; yours is left as it is"]
    else:
        data = merge_file(mine.data, before.data, after.data)
        kind = after.kind if mine.kind == before.kind else mine.kind
        update.changes[path] = File(data, kind)
        if hunks := [*_hunks(data)]:
            update.conflicts[path] = hunks
        else:
            update.merged.append(path)


def _is_text(file: File) -> bool:
    return file.kind != "link" and b"\0" not in file.data


def merge_file(mine: bytes, before: bytes, after: bytes) -> bytes:
    """Merge three ways. What both sides changed differently is in the result with conflict markers."""
    with tempfile.TemporaryDirectory(prefix="merge-") as folder:
        names = ("mine", "before", "after")
        for name, data in zip(names, (mine, before, after), strict=True):
            Path(folder, name).write_bytes(data)
        labels = [f"-L{mark.split()[1]}" for mark in MARKS]
        command = ["git", "merge-file", "--stdout", "--diff3", *labels, *names]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if not 0 <= done.returncode < 128:  # up to 127 it is the number of conflicts
        raise SetupError(f"git could not merge: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _hunks(merged: bytes) -> list[str]:
    lines = merged.decode(errors="replace").split("\n")
    starts = [number for number, line in enumerate(lines, 1) if line.rstrip("\r") == MARKS[0]]
    ends = [number for number, line in enumerate(lines, 1) if line.rstrip("\r") == MARKS[2]]
    return [f"lines {start} to {end}" for start, end in zip(starts, ends, strict=False)]
