"""create entries, with a row by which it shows how often this revision was applied"""

from alembic import op

revision = "1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE entries (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)")
    op.execute("INSERT INTO entries (text) VALUES ('the only one')")
