"""The tables. Alembic compares what is imported here with the database."""

from app.models.base import Base
from app.models.categories import Category
from app.models.products import Product

__all__ = ["Base", "Category", "Product"]
