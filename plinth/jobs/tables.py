"""The table of the queue, as a migration of the service creates it; autogenerate leaves it alone."""

from sqlalchemy import JSON, Column, DateTime, Integer, MetaData, SmallInteger, Table, Text, Uuid

STATES = "queued", "running", "succeeded", "dead", "cancelled"
"""`dead` is given up: `reason` says why."""

JOBS = Table(
    "plinth_jobs",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("key", Text),
    Column("payload", JSON, nullable=False),
    Column("context", JSON, nullable=False),
    Column("run_at", DateTime(timezone=True), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease", Uuid),
    Column("leased_until", DateTime(timezone=True)),
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("percent", SmallInteger, nullable=False, server_default="0"),
    Column("reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
)
