from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from app.schemas.base import ListQuery
from app.schemas.types import Text


class AuditRead(BaseModel):
    """A change of a row."""

    id: int
    at: datetime = Field(description="When the transaction of the change began.")
    actor: str | None = Field(description="Who made it, such as `user:7`; null for a job, a command or a console.")
    request_id: str | None
    table_name: str
    row_id: str | None = Field(description="Its primary key; a JSON array if that has several columns.")
    action: Literal["insert", "update", "delete", "truncate"]
    before: dict[str, JsonValue] | None = Field(description="The values that there were; of an update, what changed.")
    after: dict[str, JsonValue] | None = Field(description="The values that there are since.")


class AuditListQuery(ListQuery):
    sort: Literal["id", "-id"] = Field("-id", description="A `-` sorts downwards: the latest first.")
    table: Text | None = Field(None, max_length=63, description="Only changes of this table.")
    row: Text | None = Field(None, max_length=500, description="Only changes of the row with this key.")
    actor: Text | None = Field(None, max_length=500, description="Only changes that this actor made.")
