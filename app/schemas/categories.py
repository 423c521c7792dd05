from datetime import datetime
from typing import Annotated, Literal

from pydantic import MISSING, BaseModel, Field

from app.schemas.base import ListQuery, PatchSchema, RequestSchema
from app.schemas.types import Text, VisibleText

Name = Annotated[VisibleText, Field(max_length=100, examples=["Name 1"])]
Description = Annotated[Text, Field(max_length=10_000)]


class CategoryCreate(RequestSchema):
    name: Name
    description: Description = ""


class CategoryUpdate(PatchSchema):
    name: Name | MISSING = MISSING
    description: Description | MISSING = MISSING


class CategoryRead(BaseModel):
    id: int
    name: str
    description: str
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def last_modified_at(self) -> datetime:
        return self.updated_at


class CategoryListQuery(ListQuery):
    sort: Literal["id", "-id", "name", "-name", "created_at", "-created_at"] = Field(
        "id", description="A `-` sorts downwards."
    )
    name: Text | None = Field(None, description="Only categories whose `name` is this.")
