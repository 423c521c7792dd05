from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Entity


class Category(Entity):
    __tablename__ = "categories"

    name: Mapped[str] = mapped_column(String(100), unique=True)
    description: Mapped[str] = mapped_column(Text, server_default="")

    # One index for each sort; a unique column has one already. The id breaks ties.
    __table_args__ = (Index(None, "created_at", "id"),)
