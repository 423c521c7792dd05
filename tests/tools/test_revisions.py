"""A revision for a table of plinth's comes on top of the user's, once, and another one undoes it."""

import re
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from plinth.testing.locks import SetupError
from tests.tools.support import ROOT
from tools.merge import Ownership, plan
from tools.removals.jobs import JOBS
from tools.revisions import FOLDER, in_order, revisions, undoing
from tools.trees import File, Tree

OWNERSHIP = Ownership((ROOT / "ownership.toml").read_text())
CREATE, *LATER = OWNERSHIP.lists["revisions"]
TEXT = (ROOT / CREATE).read_text()
NEW = {CREATE: File(TEXT.encode())}


def own(*chain: tuple[str, str, str | None]) -> Tree:
    """Revisions of the user's: name of the file, id, and the id that it follows."""
    return {
        f"{FOLDER}{name}.py": File(f"revision = {id!r}\ndown_revision: str | None = {follows!r}\n".encode())
        for name, id, follows in chain
    }


USERS = own(("2026_10_01_0900-create_users", "a1", None), ("2026_12_24_1800-create_invoices", "b2", "a1"))


def added(project: Tree) -> dict[str, str]:
    update = plan(OWNERSHIP, {}, NEW, project)
    assert update.revisions == [*update.changes]
    assert update.offered == []
    return {path: file.data.decode() for path, file in update.changes.items() if file}


def heads(folder: Path, tree: Tree) -> list[str]:
    """As Alembic reads them."""
    (folder / FOLDER).mkdir(parents=True)
    for path, file in tree.items():
        (folder / path).write_bytes(file.data)
    return ScriptDirectory(str(folder / "migrations")).get_heads()


def test_it_follows_the_users_newest_revision_and_keeps_its_id_and_its_sql(tmp_path: Path) -> None:
    [(path, text)] = added(USERS).items()
    assert path == f"{FOLDER}2026_12_24_1800-create_jobs.py"
    assert text == TEXT.replace('down_revision = "3d6f0a51c9e2"', 'down_revision = "b2"').replace(
        "Revises: 3d6f0a51c9e2", "Revises: b2"
    )
    assert heads(tmp_path, {**USERS, path: File(text.encode())}) == [JOBS.creates]


def test_it_is_the_first_where_there_is_none(tmp_path: Path) -> None:
    [(path, text)] = added({}).items()
    assert path == CREATE
    assert "\ndown_revision = None\n" in text
    assert heads(tmp_path, {path: File(text.encode())}) == [JOBS.creates]


def test_those_of_a_newer_version_follow_one_another_and_need_nothing_of_the_apps(tmp_path: Path) -> None:
    new = {path: File((ROOT / path).read_bytes()) for path in OWNERSHIP.lists["revisions"]}
    changes = plan(OWNERSHIP, {}, new, USERS).changes
    assert len(changes) == 1 + len(LATER)
    texts = {path: file.data.decode() for path, file in sorted(changes.items()) if file}
    ids = [each.id for each in revisions(texts)]
    assert [each.follows for each in revisions(texts)] == [("b2",), *((id,) for id in ids[:-1])]
    assert heads(tmp_path, {**USERS, **{path: File(text.encode()) for path, text in texts.items()}}) == ids[-1:]
    assert [path for path, text in texts.items() if re.search(r"\busers\b", text)] == []


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("3d6f0a51c9e2", "b2"),
        TEXT.replace(JOBS.creates, "c3").replace(
            '"""\n        CREATE TABLE', '"""\n        CREATE TABLE IF NOT EXISTS'
        ),
    ],
)
def test_a_project_that_has_it_gets_nothing_twice(text: str) -> None:
    assert added({**USERS, f"{FOLDER}2027_01_01_0000-the_queue.py": File(text.encode())}) == {}
    assert plan(OWNERSHIP, NEW, NEW, USERS).changes == {}


def test_one_of_its_tables_is_not_the_same() -> None:
    text = 'revision = "c3"\ndown_revision = "b2"\nSQL = "CREATE TABLE plinth_schedules ()"\n'
    assert added({**USERS, f"{FOLDER}2027_01_01_0000-mine.py": File(text.encode())})


def test_several_newest_revisions_are_refused() -> None:
    with pytest.raises(SetupError) as refused:
        added({**USERS, **own(("2026_11_01_0000-create_suppliers", "c3", "a1"))})
    assert str(refused.value) == (
        "migrations/versions/ has several newest revisions, b2 and c3: join them by `alembic merge heads`, "
        "commit, and run this again."
    )


def test_one_that_is_no_python_is_named() -> None:
    with pytest.raises(SetupError, match=r"^migrations/versions/broken\.py cannot be read: line 1 is no Python\.$"):
        added({**USERS, f"{FOLDER}broken.py": File(b"def\n")})


def test_another_one_undoes_it(tmp_path: Path) -> None:
    project = {
        **NEW,
        **own(("2026_10_01_0900-first", "3d6f0a51c9e2", None), ("2099_01_01_0000-mine", "b2", JOBS.creates)),
    }
    texts = {path: file.data.decode() for path, file in project.items()}
    path, text = undoing(JOBS.creates, revisions(texts), "remove jobs")
    assert path == f"{FOLDER}2099_01_01_0000-remove_jobs.py"
    up, _, down = text.partition("def downgrade")
    assert text.startswith('"""remove jobs\n')
    assert 'op.execute("DROP TABLE plinth_schedules, plinth_job_effects, plinth_jobs")' in up
    assert "CREATE TABLE" not in up
    assert down.count("CREATE TABLE") == 3
    [undone] = revisions({path: text})
    assert undone.follows == ("b2",)
    assert heads(tmp_path, {**project, path: File(text.encode())}) == [undone.id]
    with pytest.raises(SetupError, match=r"has no revision 7c1e52d0b8a4, which created the tables"):
        undoing(JOBS.creates, revisions({}), "remove jobs")


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ([], "2026_11_28_2030-create_jobs.py"),
        (["2026_11_28_2030-a.py"], "2026_11_28_2030-create_jobs.py"),
        (["2026_11_28_2030-create_jobs.py"], "2026_11_28_2031-create_jobs.py"),
        (["2026_11_28_2030-z.py"], "2026_11_28_2031-create_jobs.py"),
        (["2026_12_31_2359-z.py", "2026_12_01_0000-a.py"], "2027_01_01_0000-create_jobs.py"),
        (["2026_12_31_2359-a.py"], "2026_12_31_2359-create_jobs.py"),
        (["zz.py", "9999_99_99_9999-a.py"], "2026_11_28_2030-create_jobs.py"),
    ],
)
def test_files_go_by_date(others: list[str], name: str) -> None:
    assert in_order("2026_11_28_2030-create_jobs.py", others) == name
