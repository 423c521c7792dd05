"""index categories by creation

Revision: 3d6f0a51c9e2
Revises: 0001
"""

from alembic import op

revision = "3d6f0a51c9e2"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    name = op.f("ix_categories_created_at_id")
    with op.get_context().autocommit_block():
        op.create_index(name, "categories", ["created_at", "id"], postgresql_concurrently=True, if_not_exists=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_categories_created_at_id"), table_name="categories")
