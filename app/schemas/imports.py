from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ImportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mode: Literal["insert", "upsert"] = Field(
        "insert", description="Whether a sku that is there already is an error, or its product is replaced."
    )
    errors: Literal["abort", "skip"] = Field(
        "abort", description="Whether one row with an error means that nothing is stored, or the others are."
    )


class RowError(BaseModel):
    pointer: str = Field(
        description="The number of the row, and the field: of the line where it begins, from 1; in JSON the index.",
        examples=["#/12/sku"],
    )
    detail: str


class ImportRead(BaseModel):
    id: int
    mode: Literal["insert", "upsert"]
    state: Literal["running", "done", "failed"] = Field(
        description="`failed`: there were errors, and nothing is stored."
    )
    rows: int
    done: int = Field(description="How many rows are stored.")
    failed: int = Field(description="How many rows have an error.")
    errors: list[RowError] = Field(description="The first hundred of them.")
    created_at: datetime
    finished_at: datetime | None
