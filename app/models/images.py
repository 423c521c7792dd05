from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Image(Base):
    """The image of a product. Its bytes are in the storage, under `key`."""

    __tablename__ = "product_images"

    id: Mapped[int] = mapped_column("product_id", ForeignKey("products.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(200))
    content_type: Mapped[str] = mapped_column(String(50))
    size: Mapped[int]
    hash: Mapped[str] = mapped_column(String(32))
    # Counts all images, so that no version comes back when one is deleted and another one stored.
    version: Mapped[int] = mapped_column(BigInteger, Identity())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
