from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field


class JobRead(BaseModel):
    id: UUID
    state: Literal["queued", "running", "succeeded", "dead", "cancelled"] = Field(
        description="`queued` also between two attempts. `dead` is given up; the others after `running` are final, too."
    )
    percent: int = Field(description="How far the work is.")
    attempts: int
    created_at: datetime
    finished_at: datetime | None


class JobStarted(BaseModel):
    id: UUID
