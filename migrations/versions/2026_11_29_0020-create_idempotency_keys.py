"""create idempotency keys

The table of plinth's Idempotency-Key. Its SQL is written out, since a revision outlives the version that brought it.

Revision: c4a7e1d95b38
Revises: 5f0c9b7d2e31
"""

from alembic import op

revision = "c4a7e1d95b38"
down_revision = "5f0c9b7d2e31"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE plinth_idempotency_keys (
            key bytea PRIMARY KEY,
            fingerprint bytea NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            status integer,
            headers text[],
            body bytea,
            version bigint,
            last_modified_at timestamptz
        )
    """)
    op.execute("CREATE INDEX plinth_idempotency_keys_created ON plinth_idempotency_keys (created_at)")


def downgrade() -> None:
    op.execute("DROP TABLE plinth_idempotency_keys")
