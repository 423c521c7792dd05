from pydantic import BaseModel

from app.schemas.types import Price


class PriceSummary(BaseModel):
    """Of the prices of all products; without any there is none."""

    products: int
    cheapest: Price | None
    median: Price | None
    dearest: Price | None
