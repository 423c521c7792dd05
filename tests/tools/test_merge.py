"""What an update changes, keeps and calls a conflict."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plinth.testing.locks import SetupError
from tests.tools.support import ROOT
from tools.merge import MARKS, Ownership, Update, merge_file, plan
from tools.project import TEMPLATE_PATHS
from tools.trees import File, Tree, read, write

OWNERSHIP = Ownership((ROOT / "ownership.toml").read_text())
SHARED, YOURS, OURS = ["Makefile", "docker/nginx.conf", "requirements/runtime.txt"], "app/main.py", "plinth/cli.py"
UPDATES = 20


def tracked() -> list[str]:
    listed = subprocess.check_output(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    return [path for path in listed.decode().splitlines() if (ROOT / path).is_file()]


def test_each_path_has_exactly_one_owner() -> None:
    entries = [entry for owner in OWNERSHIP.lists.values() for entry in owner]
    assert sorted(entries) == sorted(set(entries))
    fitting = {
        path: [e for e in entries if path == e or (e.endswith("/") and path.startswith(e))] for path in tracked()
    }
    assert [path for path, fits in fitting.items() if not fits] == [], "say in ownership.toml whose they are"
    made_later = {".copier-answers.yml", ".env"}
    assert set(entries) - made_later <= {entry for fits in fitting.values() for entry in fits}


def test_every_owner_is_known_and_the_longest_entry_counts() -> None:
    assert OWNERSHIP.lists.keys() == {"ours", "shared", "yours", "revisions", "template"}
    assert OWNERSHIP.lists["template"] == TEMPLATE_PATHS
    owners = {
        "plinth/http/errors.py": "ours",
        "migrations/env.py": "shared",
        "migrations/versions/1.py": "yours",
        "migrations/versions/2026_11_28_2030-create_jobs.py": "revisions",
        "docs/plinth/caching.md": "ours",
        "docs/benchmarks.md": "template",
        "tests/app/test_main.py": "yours",
        "tests/faults/load.py": "ours",
        "scripts/mine.sh": "yours",
    }
    assert {path: OWNERSHIP.owner(path) for path in owners} == owners


def text(*lines: str) -> File:
    return File("".join(f"{line}\n" for line in lines).encode())


A, B, C = text("a"), text("b"), text("c")


RUN = File(A.data, "executable")
BINARY, LINK, OBSTACLE = File(b"\0b"), File(b"b", "link"), File(b"", "obstacle")
ENDS = [text(first, "2", "3", last) for first, last in (("1", "4"), ("one", "4"), ("1", "four"), ("one", "four"))]


@pytest.mark.parametrize(
    ("before", "after", "mine", "result", "reported"),
    [
        (A, B, A, B, ""),  # only the template changed it
        (A, A, C, C, ""),  # only the user did
        (A, B, B, B, ""),  # both did the same
        (A, None, A, None, ""),
        (A, None, None, None, ""),
        (None, A, None, A, ""),
        (None, A, A, A, ""),
        (A, B, None, None, "kept_away"),
        (A, None, C, C, "conflicts"),
        (None, B, C, C, "conflicts"),
        (A, BINARY, C, C, "conflicts"),
        (A, LINK, C, C, "conflicts"),
        (A, B, LINK, LINK, "conflicts"),
        (A, B, OBSTACLE, OBSTACLE, "conflicts"),
        (None, B, OBSTACLE, OBSTACLE, "conflicts"),
        (A, RUN, C, File(C.data, "executable"), "merged"),
        (RUN, B, A, B, "merged"),
        (*ENDS, "merged"),
    ],
)
def test_a_shared_file_is_merged(
    before: File | None, after: File | None, mine: File | None, result: File | None, reported: str
) -> None:
    update = plan(OWNERSHIP, tree(before), tree(after), tree(mine))
    assert update.changes.get("Makefile", mine) == result
    said = {"merged": update.merged, "conflicts": update.conflicts, "kept_away": update.kept_away}
    assert [name for name, paths in said.items() if "Makefile" in paths] == ([reported] if reported else [])


def tree(file: File | None) -> Tree:
    return {"Makefile": file} if file else {}


def test_what_both_changed_is_marked_and_counted_by_hunk() -> None:
    before, after, mine = (text(first, *"12345", last) for first, last in (("a", "z"), ("b", "y"), ("c", "x")))
    update = plan(OWNERSHIP, tree(before), tree(after), tree(mine))
    assert update.conflicts == {"Makefile": ["lines 1 to 7", "lines 13 to 19"]}
    merged = update.changes["Makefile"]
    assert merged
    lines = merged.data.decode().splitlines()
    assert lines[:7] == [MARKS[0], "c", MARKS[1], "a", "=======", "b", MARKS[2]]


def test_what_git_cannot_merge_is_an_error() -> None:
    with pytest.raises(SetupError, match="git could not merge: "):
        merge_file(b"\0", b"a", b"b")


def test_plinth_is_replaced_and_what_was_edited_in_it_is_named() -> None:
    before: Tree = {"plinth/a.py": A, "plinth/b.py": A, "plinth/gone.py": A, "plinth/taken.py": A}
    after: Tree = {"plinth/a.py": B, "plinth/b.py": B, "plinth/new.py": B, "plinth/taken.py": B}
    mine: Tree = {"plinth/a.py": A, "plinth/b.py": C, "plinth/gone.py": C, "plinth/new.py": C, "plinth/own.py": C}
    update = plan(OWNERSHIP, before, after, mine)
    assert update.changes == dict.fromkeys(after, B) | {"plinth/gone.py": None}
    assert update.edited == ["plinth/b.py", "plinth/gone.py", "plinth/new.py", "plinth/taken.py"]
    assert plan(OWNERSHIP, {"plinth/a.py": A}, {"plinth/a.py": B}, {"plinth/a.py": B}) == Update()
    with pytest.raises(SetupError, match=r"plinth/a\.py is plinth's, but a folder or a link stands in its place"):
        plan(OWNERSHIP, before, after, {"plinth/a.py": File(b"", "obstacle")})


def test_what_is_the_users_is_never_changed() -> None:
    before: Tree = {"app/a.py": A, "app/b.py": A, "LICENSE": A}
    after: Tree = {"app/a.py": B, "app/c.py": B, "LICENSE": A}
    for mine in (before, {}, {"app/c.py": C}):
        assert plan(OWNERSHIP, before, after, mine) == Update(offered=["app/a.py", "app/b.py", "app/c.py"])


# Repeated lines, as real files have them, are what makes a merge go astray.
COMMON = ["", "}", "x = 1"]
Edit = tuple[str, int, int, list[str]]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace"]),
        st.integers(0, 40),
        st.integers(1, 3),
        st.lists(st.sampled_from([*COMMON, "own"]), min_size=1, max_size=3),
    ),
    max_size=3,
)


def edited(lines: list[str], edits: list[Edit], name: Callable[[], str]) -> list[str]:
    for operation, position, length, new in edits:
        start = position % (len(lines) + 1)
        end = start if operation == "insert" else start + length
        lines = (
            lines[:start] + ([] if operation == "delete" else [name() if n == "own" else n for n in new]) + lines[end:]
        )
    return lines


def resolved(data: bytes) -> list[str]:
    """Keep both sides, as a user may."""
    kept, inside = [], False
    for line in data.decode().splitlines():
        inside = line == MARKS[1] or (inside and line != "=======")
        if not inside and line not in (*MARKS, "======="):
            kept.append(line)
    return kept


@settings(max_examples=15, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SHARED), EDITS, EDITS), min_size=UPDATES, max_size=UPDATES))
def test_edited_files_survive_many_updates(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[str, list[Edit], list[Edit]]]
) -> None:
    root: Path = tmp_path_factory.mktemp("project")
    start = [f"line {number}" if number % 3 else COMMON[number % 9 // 3] for number in range(15)]
    recorded: dict[str, File] = {path: text(*start) for path in [*SHARED, YOURS, OURS]}
    write(root, {**recorded, YOURS: text("mine")})
    counter = iter(range(1_000_000))
    for path, of_user, of_template in rounds:
        yours = edited(lines(root, path), of_user, lambda: f"yours {next(counter)}")
        write(root, {path: text(*yours)})
        theirs = edited(recorded[path].data.decode().splitlines(), of_template, lambda: f"theirs {next(counter)}")
        new = {**recorded, path: text(*theirs), YOURS: text(*theirs), OURS: text(*theirs)}
        project = read(root, new)
        update = plan(OWNERSHIP, recorded, new, project)
        write(root, update.changes)
        result = lines(root, path)
        before = recorded[path].data.decode().splitlines()
        # Each line that a side added is there, at least as often as it was before if the other side has it too.
        for side in (yours, theirs):
            assert [line for line in side if line not in before and line not in result] == []
        if path not in update.conflicts:  # and each that a side removed is gone, if it stood there once
            gone = {line for line in before if line not in yours or line not in theirs}
            once = {line for line in gone if max(side.count(line) for side in (before, yours, theirs)) == 1}
            assert once & {*result} == set()
        assert read(root, [YOURS])[YOURS] == text("mine")
        assert read(root, [OURS])[OURS] == new[OURS]
        again = plan(OWNERSHIP, new, new, read(root, new))
        assert (again.changes, again.conflicts) == ({}, {})
        write(root, {path: text(*resolved(read(root, [path])[path].data))})
        recorded = new


def lines(root: Path, path: str) -> list[str]:
    return (root / path).read_text().splitlines()


def test_files_are_written_with_their_modes_and_links(tmp_path: Path) -> None:
    files = {"docker/a.sh": File(b"a", "executable"), "docker/b": File(b"a.sh", "link"), "plinth/old/c.py": File(b"c")}
    write(tmp_path, files)
    assert read(tmp_path, [*files, "docker"]) == {**files, "docker": File(b"", "obstacle")}
    (tmp_path / "plinth/old/__pycache__").mkdir()
    write(tmp_path, {"docker/a.sh": File(b"b"), "docker/b": File(b"b"), "plinth/old/c.py": None})
    assert read(tmp_path, files) == {"docker/a.sh": File(b"b"), "docker/b": File(b"b")}
    assert not (tmp_path / "plinth").exists()


def test_nothing_is_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a").write_text("a")
    (tmp_path / "docs").symlink_to("elsewhere")
    (tmp_path / "docker").touch()
    obstacle = File(b"", "obstacle")
    assert read(tmp_path, ["docs/a", "docs/b", "docker/a"]) == dict.fromkeys(["docs/a", "docs/b", "docker/a"], obstacle)


def test_a_file_that_cannot_be_written_undoes_all(tmp_path: Path) -> None:
    before = {"a": A, "b/c": A}
    write(tmp_path, before)
    with pytest.raises(SetupError, match="nothing was changed"):
        write(tmp_path, {"a": B, "b/c": None, "new": B, "a/below": B})
    assert read(tmp_path, ["a", "b/c", "new"]) == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c"]
