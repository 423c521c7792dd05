from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, DateTime, Identity, String, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base
from plinth.database import Money


class Import(Base):
    """Rows of one request that become products, and how far that is."""

    __tablename__ = "product_imports"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    mode: Mapped[str] = mapped_column(String(6))
    skips_errors: Mapped[bool]
    state: Mapped[str] = mapped_column(String(7))
    rows: Mapped[int]
    done: Mapped[int]
    failed: Mapped[int]
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """The first of them."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ImportRow(Base):
    """A row that is valid by itself and not merged yet. What it refers to is checked when it is."""

    __tablename__ = "product_import_rows"

    # No foreign key, which would be checked for each row: nothing deletes an import.
    import_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text)
    price: Mapped[Decimal] = mapped_column(Money)
    stock: Mapped[int]
    category_id: Mapped[int] = mapped_column(BigInteger)
