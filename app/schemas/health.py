from typing import Literal

from pydantic import BaseModel, Field


class Liveness(BaseModel):
    status: Literal["alive"] = "alive"


class Check(BaseModel):
    status: Literal["up", "down", "off"]
    seconds: float = Field(description="How long the check took.")


class Readiness(BaseModel):
    status: Literal["ready", "degraded", "draining", "unavailable"] = Field(
        description="`ready` and `degraded` answer 200: send traffic. `draining` and `unavailable` answer 503."
    )
    database: Check
    cache: Check
