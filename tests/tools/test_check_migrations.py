"""Migrations that block a table or break the previous release are refused; what the page advises instead is not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from tools.check_migrations import RULES, check, main

ROOT = Path(__file__).resolve().parents[2]
TABLE = "op.create_table('owners', sa.Column('id', sa.BigInteger, primary_key=True), sa.Column('name', sa.Text))"
CONCURRENTLY = "with op.get_context().autocommit_block():\n        "

Project = Callable[..., ScriptDirectory]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of two revisions: `owners` is made in the first one."""

    def written(*lines: str, ignored: str = "[]") -> ScriptDirectory:
        (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s\npath_separator = os\n")
        versions = tmp_path / "versions"
        versions.mkdir(exist_ok=True)
        for number, body in enumerate(([TABLE], lines), 1):
            down = repr(str(number - 1)) if number > 1 else None
            (versions / f"{number}.py").write_text(
                "import sqlalchemy as sa\nfrom alembic import op\n"
                f"revision, down_revision, squawk_ignore = '{number}', {down}, {ignored if number > 1 else []}\n"
                "def upgrade():\n    " + "\n    ".join(body) + "\n"
            )
        return ScriptDirectory.from_config(Config(tmp_path / "alembic.ini"))

    return written


REFUSED = {
    "op.create_index('ix_owners_name', 'owners', ['name'])": "require-concurrent-index-creation",
    "op.drop_index('ix_owners_name', 'owners')": "require-concurrent-index-deletion",
    "op.drop_column('owners', 'name')": "ban-drop-column",
    "op.drop_table('owners')": "ban-drop-table",
    "op.alter_column('owners', 'name', new_column_name='title')": "renaming-column",
    "op.rename_table('owners', 'holders')": "renaming-table",
    "op.alter_column('owners', 'name', type_=sa.Integer, postgresql_using='name::int')": "changing-column-type",
    "op.alter_column('owners', 'name', nullable=False)": "adding-not-nullable-field",
    "op.add_column('owners', sa.Column('age', sa.Text, nullable=False))": "adding-required-field",
    "op.add_column('owners', sa.Column('key', sa.Uuid, server_default=sa.text('gen_random_uuid()')))": (
        "adding-field-with-default"
    ),
    "op.add_column('owners', sa.Column('key', sa.Text, sa.Computed('name || 1')))": "adding-field-with-default",
    "op.create_check_constraint('ck', 'owners', 'id > 0')": "constraint-missing-not-valid",
    "op.create_foreign_key('fk', 'owners', 'users', ['id'], ['id'])": "adding-foreign-key-constraint",
    "op.create_unique_constraint('uq', 'owners', ['name'])": "disallowed-unique-constraint",
    "op.create_primary_key('pk', 'owners', ['name'])": "adding-serial-primary-key-field",
    "op.execute('REINDEX TABLE owners')": "require-concurrent-reindex",
    "op.execute('CREATE INDEX CONCURRENTLY ix ON owners (name)')": "ban-concurrent-index-creation-in-transaction",
    'op.execute("ALTER TABLE owners ADD COLUMN a text, DROP COLUMN name")': "ban-drop-column",
    "op.alter_column('owners', 'name', server_default=None)": "ban-drop-default",
    "op.execute('ALTER TABLE owners ALTER COLUMN id DROP IDENTITY')": "ban-alter-identity",
    "op.execute('ALTER TABLE owners ALTER COLUMN name DROP EXPRESSION')": "ban-drop-generated-expression",
    "op.execute('DROP FUNCTION total_of(bigint)')": "ban-drop-function",
    "op.execute('DROP SEQUENCE owners_id_seq CASCADE')": "ban-drop-sequence",
    "op.execute('DROP SCHEMA old CASCADE')": "ban-drop-schema",
    "op.execute('DROP EXTENSION pg_trgm CASCADE')": "ban-drop-extension",
    "op.execute('ALTER TABLE owners SET SCHEMA old')": "ban-set-schema",
    "op.execute('ALTER TABLE owners SET UNLOGGED')": "rewriting-table",
    "op.execute('alter table only owners\\n  set tablespace fast')": "rewriting-table",
    "op.execute('ALTER TABLE owners ADD COLUMN a text, SET ACCESS METHOD columnar')": "rewriting-table",
    "op.execute('SELECT 1; -- as in 1.4\\nCLUSTER owners USING owners_pkey')": "rewriting-table",
    "op.execute('REFRESH MATERIALIZED VIEW totals')": "rewriting-table",
    f"{CONCURRENTLY}op.execute('VACUUM (ANALYZE, FULL) owners')": "rewriting-table",
}


@pytest.mark.parametrize(("line", "rule"), REFUSED.items())
def test_what_blocks_or_breaks_is_refused(project: Project, line: str, rule: str) -> None:
    faults = [*check(project(line))]
    assert any(f"2.py: {rule}: " in fault for fault in faults), faults
    assert rule in RULES


@pytest.mark.parametrize("rule", sorted({*REFUSED.values()}))
def test_a_revision_may_ignore_a_rule(project: Project, rule: str) -> None:
    lines = [line for line, each in REFUSED.items() if each == rule]
    assert not [fault for fault in check(project(*lines, ignored=f"['{rule}']")) if f": {rule}: " in fault]


ACCEPTED = [
    f"{CONCURRENTLY}op.create_index('ix_owners_name', 'owners', ['name'], postgresql_concurrently=True)",
    f"{CONCURRENTLY}op.drop_index('ix_owners_name', 'owners', postgresql_concurrently=True)",
    "op.add_column('owners', sa.Column('age', sa.Text))",
    "op.add_column('owners', sa.Column('age', sa.Text, nullable=False, server_default='0'))",
    "op.create_check_constraint('ck', 'owners', 'id > 0', postgresql_not_valid=True)",
    "op.execute('ALTER TABLE owners VALIDATE CONSTRAINT ck')",
    "op.create_foreign_key('fk', 'owners', 'users', ['id'], ['id'], postgresql_not_valid=True)",
    "op.execute('ALTER TABLE owners ADD CONSTRAINT uq UNIQUE USING INDEX ix_owners_name')",
    f"{TABLE.replace('owners', 'pets')}; op.create_index('ix', 'pets', ['name'])",
    "op.execute('UPDATE owners SET name = lower(name) WHERE id < 1000')",
    "op.execute('UPDATE owners SET logged = true')",
    "op.execute('ALTER TABLE owners SET (fillfactor = 70)')",
    "op.alter_column('owners', 'name', server_default='set logged')",
    "op.alter_column('owners', 'name', nullable=True)",
    "op.execute('REFRESH MATERIALIZED VIEW CONCURRENTLY totals')",
    "op.execute('REFRESH MATERIALIZED VIEW\\n  CONCURRENTLY totals')",
    f"{CONCURRENTLY}op.execute('VACUUM (ANALYZE) owners')",
]


@pytest.mark.parametrize("line", ACCEPTED)
def test_what_the_page_advises_is_accepted(project: Project, line: str) -> None:
    assert [*check(project(line))] == []


def test_a_revision_that_reads_the_database_is_refused(project: Project) -> None:
    [fault] = check(project("[*op.get_bind().execute(sa.text('SELECT 1'))]"))
    assert "2.py: cannot be rendered as SQL" in fault


def test_the_command_fails_with_a_sentence(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project("op.drop_table('owners')")
    assert main(str(tmp_path / "alembic.ini")) == 1
    assert "ban-drop-table: Dropping a table may break existing clients." in capsys.readouterr().err
    project("pass")
    assert main(str(tmp_path / "alembic.ini")) == 0


def test_the_migrations_of_the_service_are_accepted() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.check_migrations"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
