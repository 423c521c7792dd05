"""Settings of outgoing calls: `OUTGOING_RETRIES` is `settings.outgoing.retries`, and so on."""

from pydantic import BaseModel, ConfigDict, Field


class OutgoingSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    timeout_seconds: float = Field(10.0, gt=0, le=86_400, description="Longest wait for another server to respond.")
    connect_timeout_seconds: float = Field(3.0, gt=0, le=86_400, description="Longest wait for a connection to it.")
    max_connections: int = Field(50, ge=1, le=10_000, description="Connections to other servers, per worker.")
    retries: int = Field(2, ge=0, le=10, description="Most retries of one call; of all to a host, one in ten is.")
    breaker_failures: int = Field(5, ge=1, description="Failures in a row after which a host is not called.")
    breaker_seconds: int = Field(10, ge=1, le=86_400, description="For so long; then one call tries it.")
