"""create security

The tables of plinth's limits on sign-ins. Their SQL is written out, since a revision outlives the version that brought it.

Revision: 5f0c9b7d2e31
Revises: 7c1e52d0b8a4
"""

from alembic import op

revision = "5f0c9b7d2e31"
down_revision = "7c1e52d0b8a4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE plinth_login_attempts (
            key bytea PRIMARY KEY,
            attempts integer NOT NULL,
            last_at timestamptz NOT NULL,
            locked_until timestamptz NOT NULL
        ) WITH (fillfactor = 70)
    """)
    op.execute("CREATE INDEX plinth_login_attempts_last ON plinth_login_attempts (last_at)")


def downgrade() -> None:
    op.execute("DROP TABLE plinth_login_attempts")
