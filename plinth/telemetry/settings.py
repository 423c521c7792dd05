"""Settings of the log: `LOG_LEVEL` is `settings.log.level`, and so on."""

from typing import Literal

from pydantic import BaseModel, Field


class LogSettings(BaseModel):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")
    format: Literal["json", "text"] | None = Field(None, description="Unset: json in production, else text.")
