"""index entries without blocking them, which waits for every older snapshot of the database"""

from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_entries_text", "entries", ["text"], postgresql_concurrently=True)
