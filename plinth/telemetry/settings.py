"""Settings of what the service reports of itself: `LOG_LEVEL` is `settings.log.level`, and so on."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr

from plinth.telemetry.tracing import exports_traces


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _dsn(dsn: SecretStr | None) -> SecretStr | None:
    if dsn is not None and not re.fullmatch(r"https?://[^\s@/]+@[^\s@]+/\d+", dsn.get_secret_value()):
        raise ValueError("must be the DSN of a project, such as https://key@sentry.example.com/1")
    return dsn


class LogSettings(BaseModel):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)] = Field(
        "INFO", description="Least severe level logged."
    )
    format: Annotated[Literal["json", "text"] | None, BeforeValidator(_lower)] = Field(
        None, description="Unset: json in production, else text."
    )
    sample: float = Field(
        1.0, ge=0, le=1, description="Part of the successful requests that are logged; errors and slow ones always are."
    )
    slow_seconds: float = Field(1.0, gt=0, description="Requests that take longer are always logged.")


class MetricsSettings(BaseModel):
    port: int | None = Field(
        None, ge=1, le=65535, description="Port of /metrics alone, which a proxy must not publish. Unset: none."
    )
    token: SecretStr | None = Field(
        None, description="Bearer token for /metrics on the port of the service, which production has not without one."
    )


class ProfileSettings(BaseModel):
    requests: bool = Field(False, description="Answer requests that have the X-Profile header with their profile.")
    token: SecretStr | None = Field(
        None, description="Needed in production: what their X-Profile-Token header has to be."
    )

    def production_faults(self) -> Iterator[str]:
        """What must not be so in production, a sentence each that begins with the variable."""
        if self.requests and (self.token is None or len(self.token.get_secret_value()) < 16):
            yield "PROFILE_TOKEN: needs 16 characters or more where PROFILE_REQUESTS is on"


class SentrySettings(BaseModel):
    dsn: Annotated[SecretStr | None, AfterValidator(_dsn)] = Field(
        None, description="Where errors are reported, with the extra `sentry` installed."
    )


def missing_extras(profile: ProfileSettings, sentry: SentrySettings) -> Iterator[str]:
    """Yield a sentence for each thing that is switched on and not installed."""
    for is_on, variable, extra, module in (
        (exports_traces(), "OTEL_EXPORTER_OTLP_ENDPOINT", "tracing", "opentelemetry.sdk"),
        (sentry.dsn is not None, "SENTRY_DSN", "sentry", "sentry_sdk"),
        (profile.requests, "PROFILE_REQUESTS", "profiling", "pyinstrument"),
    ):
        if is_on and find_spec(module) is None:
            yield f"{variable}: needs the extra `{extra}`; install it, or unset the variable"
