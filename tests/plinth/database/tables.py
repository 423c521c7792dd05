"""Tables of the tests' own: the database capability knows nothing of products."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, MetaData, Numeric, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from plinth.database import Money

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    label: Mapped[str] = mapped_column(unique=True)
    amount: Mapped[Decimal] = mapped_column(Money, server_default="0")
    made_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("things.id"))
    late: Mapped[int | None]

    # Checked at COMMIT, which is how a commit can fail.
    __table_args__ = (UniqueConstraint("late", deferrable=True, initially="DEFERRED"),)


class Account(Base):
    """A table with optimistic locking."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column(server_default="1")
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )

    __mapper_args__ = {"version_id_col": version, "eager_defaults": True}  # noqa: RUF012 - SQLAlchemy reads it so


class Event(Base):
    """A table whose key is no integer."""

    __tablename__ = "events"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    day: Mapped[date]
    note: Mapped[str | None]
    rank: Mapped[int] = mapped_column(default=0)
    rate: Mapped[Decimal] = mapped_column(Numeric(6, 4), default=Decimal(0))


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Everything(Base):
    """A column of each type whose Python value is not what the driver sends, or might not be."""

    __tablename__ = "everything"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    amount: Mapped[Decimal | None] = mapped_column(Money)
    exact: Mapped[Decimal | None] = mapped_column(Numeric(20, 5))
    approximate: Mapped[float | None]
    flag: Mapped[bool | None]
    colour: Mapped[Colour | None]
    words: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    document: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    raw: Mapped[bytes | None]
    key: Mapped[UUID | None]
    happened_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    day: Mapped[date | None]
    lasted: Mapped[timedelta | None]


class ThingRow(NamedTuple):
    id: int
    label: str
    amount: Decimal
    made_at: datetime
