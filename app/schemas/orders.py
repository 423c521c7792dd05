from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.enums import OrderStatus
from app.schemas.base import ListQuery, RequestSchema
from app.schemas.types import Id, Price
from app.schemas.wire import InJSON, whole

Quantity = Annotated[int, Field(ge=1, le=1000), InJSON(whole)]
REPEATED = PydanticCustomError("repeated_product", "Another line has this product. Add the quantities up in one line.")


class OrderLineCreate(RequestSchema):
    product_id: Id
    quantity: Quantity


class OrderCreate(RequestSchema):
    lines: list[OrderLineCreate] = Field(min_length=1, max_length=100)

    @field_validator("lines")
    @classmethod
    def _one_line_of_each(cls, lines: list[OrderLineCreate]) -> list[OrderLineCreate]:
        seen: set[int] = set()
        for place, line in enumerate(lines):
            if line.product_id in seen:
                fault = InitErrorDetails(type=REPEATED, loc=(place, "product_id"), input=line.product_id)
                raise ValidationError.from_exception_data(cls.__name__, [fault])
            seen.add(line.product_id)
        return lines


class OrderLineRead(BaseModel):
    """Prices and names are those of the day of the order."""

    product_id: int
    sku: str
    name: str
    price: Price
    quantity: int


class OrderRead(BaseModel):
    id: int
    user_id: int | None = Field(description="Whose it is; null once the account was deleted.")
    status: OrderStatus
    total: Price
    lines: list[OrderLineRead]
    version: int
    created_at: datetime
    updated_at: datetime


class OrderEventRead(BaseModel):
    order_id: int
    status: OrderStatus
    created_at: datetime


class OrderListQuery(ListQuery):
    sort: Literal["id", "-id"] = Field("-id", description="A `-` sorts downwards: the newest first.")
    status: OrderStatus | None = Field(None, description="Only orders in this state.")
