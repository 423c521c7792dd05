import re
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import MISSING, AfterValidator, BaseModel, Field

from app.enums import Role
from app.schemas.base import ListQuery, PatchSchema
from app.schemas.types import Choice, Email, VisibleText
from app.schemas.wire import InJSON

ONE_LINE = re.compile(r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")


def _one_line(text: str) -> str:
    if not ONE_LINE.fullmatch(text):
        raise ValueError("Text must be one line without control characters")
    return text


# The local part could in theory distinguish capitals, and no provider does: one mailbox is one account.
Address = Annotated[Email, AfterValidator(str.lower)]
# One line: it is in mails that others receive, who have not written it.
Name = Annotated[
    VisibleText, InJSON(check=_one_line, pattern=ONE_LINE.pattern), Field(max_length=100, examples=["Ada Lovelace"])
]


class UserUpdate(PatchSchema):
    """What users may change of their own account."""

    name: Name | MISSING = MISSING


class UserAdministration(PatchSchema):
    """What administrators may change of another account."""

    role: Choice[Role] | MISSING = MISSING
    is_active: bool | MISSING = MISSING


class UserRead(BaseModel):
    id: int
    email: str
    name: str
    role: Role
    is_active: bool
    verified_at: datetime | None = Field(description="When the address was confirmed; null until then.")
    version: int
    created_at: datetime
    updated_at: datetime


class UserListQuery(ListQuery):
    sort: Literal["id", "-id", "email", "-email", "created_at", "-created_at"] = Field(
        "id", description="A `-` sorts downwards."
    )
    email: Address | None = Field(None, description="Only the account of this address.")
    role: Role | None = Field(None, description="Only accounts that have this role.")


class SessionRead(BaseModel):
    id: UUID
    is_current: bool = Field(description="Whether this request belongs to it.")
    user_agent: str
    created_at: datetime
    used_at: datetime = Field(description="When its tokens were last renewed.")
    expires_at: datetime


class Sessions(BaseModel):
    items: list[SessionRead]
