from datetime import datetime

from sqlalchemy import DateTime, Enum, Index, String, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.enums import Role
from app.models.base import Entity


class User(Entity):
    """An account of a person."""

    __tablename__ = "users"

    email: Mapped[str] = mapped_column(String(254), unique=True)
    """In lower case, so that it is unique in any."""
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(Text)
    role: Mapped[Role] = mapped_column(
        Enum(Role, name="user_role", values_callable=lambda kind: [each.value for each in kind]),
        server_default=Role.USER.value,
    )
    is_active: Mapped[bool] = mapped_column(server_default=true())
    verified_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the person was shown to receive mail at the address."""

    # One index for each sort; a unique column has one already. The id breaks ties.
    __table_args__ = (Index(None, "created_at", "id"),)
