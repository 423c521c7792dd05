"""Settings of the log: `LOG_LEVEL` is `settings.log.level`, and so on."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class LogSettings(BaseModel):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)] = Field(
        "INFO", description="Least severe level logged."
    )
    format: Annotated[Literal["json", "text"] | None, BeforeValidator(_lower)] = Field(
        None, description="Unset: json in production, else text."
    )
