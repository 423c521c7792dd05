"""create jobs

The tables of plinth's queue. Their SQL is written out, since a revision outlives the version that brought it.

Revision: 7c1e52d0b8a4
Revises: 3d6f0a51c9e2
"""

from alembic import op

revision = "7c1e52d0b8a4"
down_revision = "3d6f0a51c9e2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE plinth_jobs (
            id uuid PRIMARY KEY,
            name text NOT NULL,
            queue text NOT NULL,
            state text NOT NULL DEFAULT 'queued'
                CHECK (state IN ('queued', 'running', 'succeeded', 'dead', 'cancelled')),
            priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1 AND 1),
            key text,
            payload json NOT NULL,
            context json NOT NULL DEFAULT '{}',
            run_at timestamptz NOT NULL DEFAULT now(),
            attempts integer NOT NULL DEFAULT 0,
            lease uuid,
            leased_until timestamptz,
            cancel_requested_at timestamptz,
            percent smallint NOT NULL DEFAULT 0,
            reason text,
            created_at timestamptz NOT NULL DEFAULT now(),
            finished_at timestamptz
        ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)
    """)
    op.execute("CREATE INDEX plinth_jobs_queued ON plinth_jobs (queue, priority, run_at) WHERE state = 'queued'")
    op.execute("CREATE INDEX plinth_jobs_running ON plinth_jobs (leased_until) WHERE state = 'running'")
    op.execute("CREATE INDEX plinth_jobs_finished ON plinth_jobs (state, finished_at) WHERE finished_at IS NOT NULL")
    op.execute("CREATE UNIQUE INDEX plinth_jobs_key ON plinth_jobs (name, key) WHERE state IN ('queued', 'running')")
    op.execute("""
        CREATE TABLE plinth_job_effects (
            job_id uuid NOT NULL REFERENCES plinth_jobs ON DELETE CASCADE,
            name text NOT NULL,
            PRIMARY KEY (job_id, name)
        )
    """)
    op.execute("""
        CREATE TABLE plinth_schedules (
            name text PRIMARY KEY,
            definition text NOT NULL,
            next_at timestamptz NOT NULL
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE plinth_schedules, plinth_job_effects, plinth_jobs")
