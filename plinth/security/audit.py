"""The audit trail: who changed which row when, from what to what, recorded by a trigger in the same transaction.

A migration opts a table in: `op.execute("SELECT plinth_audit_start('users', '{password_hash}')")`. From then on nothing
changes its rows unseen: neither bulk statements nor COPY, cascades or a console do.
"""

from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import BigInteger, DateTime, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from plinth.database import Keyset, KeysetPage, Readable, Session
from plinth.telemetry import request_id

KEEP = timedelta(days=365)

# Both are forgotten at the end of the transaction, also behind PgBouncer, and whether it commits or not.
SET_ACTOR = text("""
    SELECT set_config('plinth.actor', :actor, true), set_config('plinth.request_id', :request_id, true)
""")
PRUNE = text("""
    WITH pruned AS (
        DELETE FROM plinth_audit WHERE id IN (
            SELECT id FROM plinth_audit WHERE at < now() - CAST(:age AS interval)
            ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
        ) RETURNING id
    )
    SELECT count(*) FROM pruned
""")


class Base(DeclarativeBase):
    """A metadata of its own, which autogenerate leaves alone."""


class AuditEntry(Base):
    __tablename__ = "plinth_audit"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    actor: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    table_name: Mapped[str] = mapped_column(Text)
    row_id: Mapped[str | None] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class AuditRow(NamedTuple):
    """A change of a row. An update has the changed columns only."""

    id: int
    at: datetime
    """When the transaction began."""
    actor: str | None
    """`Principal.name`; None for a change that no principal made: of a job, a command or a console."""
    request_id: str | None
    table_name: str
    row_id: str | None
    """The primary key: as a text, or as a JSON array if it has several columns. None for a table that was emptied."""
    action: str
    """`insert`, `update`, `delete`, or `truncate` for all rows at once."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditQueries:
    """Reads the audit trail."""

    pages: ClassVar[Keyset[AuditRow]] = Keyset(
        "audit",
        AuditRow,
        select(*(getattr(AuditEntry, name) for name in AuditRow._fields)),
        sorts={"id": AuditEntry.id},
        filters={
            "table": AuditEntry.table_name == bindparam("table"),
            "row": AuditEntry.row_id == bindparam("row"),
            "actor": AuditEntry.actor == bindparam("actor"),
        },
    )

    def __init__(self, db: Readable) -> None:
        self._db = db

    async def page(self, **query: Any) -> KeysetPage[AuditRow]:
        return await self.pages.page(self._db, **query)


async def set_actor(session: Session, actor: str) -> None:
    """Record the changes of the session's transaction as those of `actor`, and of the request that is served."""
    await session.execute(SET_ACTOR, {"actor": actor, "request_id": request_id.get() or ""})


async def prune_audit(session: Session, older_than: timedelta = KEEP, most: int = 10_000) -> int:
    """Delete at most so many entries that are older, the oldest first, and return how many there were."""
    return int(await session.scalar(PRUNE, {"age": older_than, "most": most}) or 0)
