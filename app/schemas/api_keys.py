from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from app.schemas.base import RequestSchema
from app.schemas.types import Instant, Text, VisibleText

Name = Annotated[VisibleText, Field(max_length=100, examples=["Nightly import"])]
Scope = Annotated[Text, Field(max_length=50, examples=["content:write"])]


class ApiKeyCreate(RequestSchema):
    name: Name
    scopes: list[Scope] = Field([], max_length=20, description="What it may do, at most what you may.")
    expires_at: Instant | None = Field(None, description="Unset: it is valid until it is deleted.")


class ApiKeyRead(BaseModel):
    id: int
    name: str
    hint: str = Field(description="The beginning of the key.")
    scopes: list[str]
    expires_at: datetime | None
    created_at: datetime


class ApiKeyCreated(ApiKeyRead):
    key: str = Field(description="Shown only now: only its hash is stored.")


class ApiKeys(BaseModel):
    items: list[ApiKeyRead]
