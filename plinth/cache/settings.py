"""Settings of Redis and of the cache: `REDIS_URL` is `settings.redis.url`, and so on."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field


def _redis_url(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must look like redis://host:6379/0; rediss:// asks for TLS")
    return url


RedisURL = Annotated[str, AfterValidator(_redis_url)]


class RedisSettings(BaseModel):
    url: RedisURL | None = Field(None, repr=False, description="Redis or Valkey; without it, caches live in memory.")
    timeout_seconds: float = Field(0.1, gt=0, description="Longest wait for one command or connection.")
    max_connections: int = Field(20, ge=2, description="Connections per worker, besides the two of the cache.")


class CacheSettings(BaseModel):
    responses: Literal["memory"] | bool = Field(
        True,
        description="Cache responses in Redis; `memory`: also without it, where one process alone uses the database.",
    )
    namespace: str = Field(
        "",  # plinth.settings derives it from the name of the service
        description="Prefix of all keys in Redis; services that share one need their own. Unset: APP_NAME.",
    )
    memory_entries: int = Field(10_000, ge=1, description="Most entries kept in memory, per worker.")
    memory_megabytes: int = Field(32, ge=1, description="Most memory they take, per worker.")
