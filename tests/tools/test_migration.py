import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.operations.ops import (
    CreateTableOp,
    DowngradeOps,
    DropIndexOp,
    DropTableOp,
    MigrationScript,
    ModifyTableOps,
    UpgradeOps,
)
from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, Table

from tools.migration import drop_referring_tables_first, in_order, main

ROOT = Path(__file__).resolve().parents[2]


def migrations(checkout: Path) -> set[Path]:
    return {*(checkout / "migrations/versions").glob("*.py")}


def test_a_migration_holds_the_difference_between_models_and_migrations(tmp_path: Path) -> None:
    for name in ("app", "migrations", "plinth", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    before = migrations(tmp_path)
    model = tmp_path / "app/models/categories.py"
    columns = "    colour: Mapped[str | None] = mapped_column(String(20))\n"
    columns += '    finish: Mapped[str | None] = mapped_column(Enum("matt", "gloss", name="finish"))\n'
    model.write_text("from sqlalchemy import Enum\n" + model.read_text() + columns)
    subprocess.run(
        [sys.executable, "-m", "tools.migration", "give", "categories", "a", "colour"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
    )
    (written,) = migrations(tmp_path) - before
    assert written.name.endswith("-give_categories_a_colour.py")
    text = written.read_text()
    assert 'op.add_column("categories", sa.Column("colour", sa.String(length=20), nullable=True)' in text
    assert 'op.drop_column("categories", "colour")' in text
    up, _, down = text.partition("def downgrade")
    assert (
        up.index("CREATE TYPE finish AS ENUM ('matt', 'gloss')") < up.index('"finish"') < up.index("create_type=False")
    )
    assert down.index('op.drop_column("categories", "finish")') < down.index("DROP TYPE finish")


@pytest.mark.parametrize("order", [("parents", "children"), ("children", "parents")])
def test_a_table_is_dropped_before_those_it_refers_to(order: tuple[str, ...]) -> None:
    metadata = MetaData()
    Table("parents", metadata, Column("id", Integer, primary_key=True))
    children = Table("children", metadata, Column("parent_id", ForeignKey("parents.id")), Column("name", Integer))
    index = Index("ix_children_name", children.c.name)
    before = ModifyTableOps("children", [DropIndexOp.from_index(index)])
    drops = {name: DropTableOp.from_table(metadata.tables[name]) for name in order}
    script = MigrationScript("1", UpgradeOps([before, *drops.values()]), DowngradeOps([]))
    drop_referring_tables_first(script, ["parents", "children"])
    assert script.upgrade_ops
    assert script.downgrade_ops
    up, down = script.upgrade_ops.ops, script.downgrade_ops.ops
    assert isinstance(up[0], ModifyTableOps)
    assert [each.table_name for each in up if isinstance(each, DropTableOp)] == ["children", "parents"]
    assert [each.table_name for each in down if isinstance(each, CreateTableOp)] == ["parents", "children"]
    assert isinstance(down[-1], ModifyTableOps)
    assert (len(up), len(down)) == (3, 3)


def test_an_empty_migration_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    before = migrations(ROOT)
    assert main("nothing") == 1
    assert capsys.readouterr().err.startswith("The models have not changed")
    assert migrations(ROOT) == before


def test_a_migration_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("") == 1
    assert "NAME=" in capsys.readouterr().err


def test_a_migration_of_the_same_minute_comes_after_the_one_before(tmp_path: Path) -> None:
    for name in ("2026_12_31_2358-create_a.py", "2026_12_31_2359-create_z.py", "2026_12_31_2359-create_b.py"):
        (tmp_path / name).touch()
    renamed = in_order(tmp_path / "2026_12_31_2359-create_b.py")
    assert renamed.name == "2027_01_01_0000-create_b.py"
    assert in_order(renamed) == renamed
