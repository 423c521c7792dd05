"""The enums of columns, which requests and responses have too."""

from enum import StrEnum


class OrderStatus(StrEnum):
    PENDING = "pending"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


class Role(StrEnum):
    USER = "user"
    EDITOR = "editor"
    ADMIN = "admin"
