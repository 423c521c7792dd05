from datetime import datetime

from pydantic import BaseModel, Field

from app.enums import OrderStatus
from app.schemas.types import Price


class OrderCount(BaseModel):
    status: OrderStatus
    orders: int
    total: Price


class LatestOrder(BaseModel):
    id: int
    status: OrderStatus
    total: Price
    created_at: datetime


class BoughtProduct(BaseModel):
    product_id: int
    name: str
    quantity: int


class NewProduct(BaseModel):
    id: int
    name: str
    price: Price


class Dashboard(BaseModel):
    """What a user sees first. A part that took too long is null."""

    counts: list[OrderCount] | None = Field(description="Your orders by state.")
    latest: list[LatestOrder] | None = Field(description="Your latest orders.")
    bought: list[BoughtProduct] | None = Field(description="What you have ordered most.")
    new: list[NewProduct] | None = Field(description="The newest products in stock.")
    missing: list[str] = Field(description="The parts that took too long. Fetch the dashboard again to have them.")
