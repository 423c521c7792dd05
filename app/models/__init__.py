"""The tables. Alembic compares what is imported here with the database."""

from app.models.api_keys import ApiKey
from app.models.auth import Login, MailToken, RefreshToken
from app.models.base import Base
from app.models.categories import Category
from app.models.images import Image
from app.models.imports import Import, ImportRow
from app.models.orders import Order, OrderLine
from app.models.products import Product
from app.models.users import User

__all__ = [
    "ApiKey",
    "Base",
    "Category",
    "Image",
    "Import",
    "ImportRow",
    "Login",
    "MailToken",
    "Order",
    "OrderLine",
    "Product",
    "RefreshToken",
    "User",
]
