"""Settings: one validated group per capability, read once from the environment, `.env` and secret files.

A variable's name is its group and its field: `DATABASE_POOL_SIZE` is `settings.database.pool_size`. A secret is a file
of that name in /run/secrets, where Docker and Kubernetes put them; a variable goes before it.
"""

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as UnreadableSettingsError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DEVELOPMENT_SECRET_KEY = "development-only-secret-key-change-me"  # noqa: S105 - refused in production
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
TLS_MODES = {"require", "verify-ca", "verify-full"}


class ConfigurationError(Exception):
    """The environment holds settings that cannot be used. Its text lists every fault, one a line."""


def _asyncpg_url(url: str) -> str:
    """Accept the URLs that platforms hand out (`postgres://…?sslmode=`), in asyncpg's spelling."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError("must look like postgresql://user:password@host:5432/name") from error
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("must start with postgresql://; Plinth runs on PostgreSQL alone")
    query = dict(parsed.query)
    if "sslmode" in query:
        query.setdefault("ssl", query.pop("sslmode"))
    return parsed.set(drivername="postgresql+asyncpg", query=query).render_as_string(hide_password=False)


def _redis_url(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must look like redis://host:6379/0; rediss:// asks for TLS")
    return url


RedisURL = Annotated[str, AfterValidator(_redis_url)]
PostgresURL = Annotated[str, AfterValidator(_asyncpg_url)]


class AppSettings(BaseModel):
    name: str = Field("Plinth", description="The service's name, in the API's title and in the logs.")
    env: Literal["development", "test", "production"] = Field(
        "development", description="`production` refuses unsafe settings and hides the docs."
    )
    debug: bool = Field(False, description="Log at DEBUG, SQL statements included. Refused in production.")
    secret_key: str = Field(
        DEVELOPMENT_SECRET_KEY, repr=False, description="Signs what the service hands out; 32 bytes or more."
    )
    example_data: bool = Field(False, description="Let `app seed` load example data. Refused in production.")


class DatabaseSettings(BaseModel):
    url: PostgresURL = Field(
        "postgresql+asyncpg://postgres@127.0.0.1:5432/plinth",
        repr=False,
        description="PostgreSQL 16 or newer; `?sslmode=verify-full` asks for TLS.",
    )
    direct_url: PostgresURL | None = Field(
        None,
        repr=False,
        description="Past a connection pooler, for migrations and example data. Unset: DATABASE_URL.",
    )
    replica_url: PostgresURL | None = Field(
        None, repr=False, description="A streaming replica, which answers reads. Unset: the primary does."
    )
    replica_lag_seconds: float = Field(
        2.0, gt=0, description="A replica further behind is not read; after a write, none is for so long at least."
    )
    wait_seconds: float = Field(30.0, ge=0, description="Longest wait for the database at the start.")
    require_migrated: bool = Field(True, description="Refuse to start on a database that lacks migrations.")
    allow_plaintext: bool = Field(False, description="Let production reach its database without TLS.")
    pool_size: int = Field(8, ge=1, description="Connections for transactions, per worker.")
    read_pool_size: int = Field(10, ge=1, description="Connections for reads without a transaction, per worker.")
    pool_timeout_seconds: float = Field(3.0, gt=0, description="Wait for a free connection; then 503.")
    pool_recycle_seconds: int = Field(1800, ge=1, description="Age at which a connection is replaced.")
    connect_timeout_seconds: float = Field(5.0, gt=0, description="Wait for PostgreSQL to accept a connection.")
    statement_timeout_seconds: float = Field(10.0, gt=0, description="Longest time one statement may run.")
    slow_statement_seconds: float = Field(0.5, gt=0, description="A slower statement is logged with its SQL.")
    prepared_statements: bool = Field(
        True, description="Off behind PgBouncer in transaction mode, unless it is 1.21 or newer and keeps them."
    )

    @property
    def direct(self) -> "DatabaseSettings":
        """For what needs a session of its own, or more time than a pooler lets a statement take."""
        return self.model_copy(update={"url": self.direct_url or self.url, "replica_url": None})


class RedisSettings(BaseModel):
    url: RedisURL | None = Field(None, repr=False, description="Redis or Valkey; without it, caches live in memory.")
    timeout_seconds: float = Field(0.1, gt=0, description="Longest wait for one command or connection.")
    max_connections: int = Field(20, ge=2, description="Connections per worker, besides the two of the cache.")


class CacheSettings(BaseModel):
    responses: bool = Field(True, description="Keep the answers of the routes that say so (`@cached_response`).")
    namespace: str = Field("plinth", description="Begins every key in Redis; services that share one need their own.")
    memory_entries: int = Field(10_000, ge=1, description="Most entries kept in memory, per worker.")
    memory_megabytes: int = Field(32, ge=1, description="Most memory they take, per worker.")


class HttpSettings(BaseModel):
    docs: bool | None = Field(None, description="Serve /docs and /openapi.json. Unset: everywhere but in production.")
    max_body_bytes: int = Field(1_048_576, ge=1, description="Larger request bodies get 413.")
    gzip_level: int = Field(4, ge=0, le=9, description="Compression level of responses; 0 switches gzip off.")
    gzip_minimum_bytes: int = Field(1000, ge=0, description="Smaller responses are not compressed.")
    redirect_https: bool = Field(False, description="Redirect http to https and send HSTS; behind a TLS proxy.")
    require_if_match: bool = Field(False, description="Answer 428 to a change that does not say of which version.")
    trusted_proxies: str = Field("127.0.0.1", description="Addresses whose X-Forwarded-* headers are believed.")


class CorsSettings(BaseModel):
    origins: str = Field("", description="Origins allowed to call from a browser, comma-separated; `*` is all.")
    credentials: bool = Field(False, description="Let browsers send cookies along.")

    @property
    def allowed(self) -> list[str]:
        return [origin.strip() for origin in self.origins.split(",") if origin.strip()]


class LogSettings(BaseModel):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")
    format: Literal["json", "text"] | None = Field(None, description="Unset: json in production, else text.")


class ServerSettings(BaseModel):
    timeout_seconds: int = Field(30, ge=2, description="A worker silent for this long is killed and replaced.")
    graceful_timeout_seconds: int = Field(
        30, ge=2, description="Time a stopping worker has to finish its requests before it is killed."
    )
    drain_seconds: float = Field(
        2.0, ge=0, description="Time between being asked to stop and stopping, in which readiness answers 503."
    )
    drain_file: Path | None = Field(
        None, description="While this file exists, readiness answers 503; `app drain` makes it."
    )
    keep_alive_seconds: int = Field(75, ge=1, description="Idle time of a connection; above the load balancer's.")
    max_requests: int = Field(0, ge=0, description="Requests after which a worker is replaced; 0 is never.")
    max_requests_jitter: int = Field(0, ge=0, description="Random addition, so that workers do not leave together.")


class Settings(BaseSettings):
    """Everything that can be configured. Build it with `get_settings()`, or directly in tests."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        secrets_dir="/run/secrets",
        extra="ignore",
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    web_concurrency: int | None = Field(None, ge=1, description="Worker processes. Unset: the cores available.")

    app: AppSettings = Field(default_factory=AppSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    cors: CorsSettings = Field(default_factory=CorsSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files = NestedSecretsSettingsSource(file_secret_settings, secrets_dir_missing="ok")
        return init_settings, env_settings, dotenv_settings, files

    @property
    def production(self) -> bool:
        return self.app.env == "production"

    @property
    def workers(self) -> int:
        return self.web_concurrency or available_cores()

    @property
    def docs_enabled(self) -> bool:
        return not self.production if self.http.docs is None else self.http.docs

    @property
    def log_level(self) -> str:
        return "DEBUG" if self.app.debug else self.log.level

    @property
    def log_format(self) -> Literal["json", "text"]:
        return self.log.format or ("json" if self.production else "text")

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> Self:
        faults = self._production_faults() if self.production else []
        if self.docs_enabled and find_spec("fastapi_swagger") is None:
            faults.append("HTTP_DOCS: /docs needs Swagger UI; install the `docs` extra, or set HTTP_DOCS=false")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _production_faults(self) -> list[str]:
        faults = []
        if self.app.secret_key == DEVELOPMENT_SECRET_KEY:
            faults.append("APP_SECRET_KEY: is missing or the default; set it to the output of `openssl rand -hex 32`")
        elif len(self.app.secret_key.encode()) < 32:
            faults.append("APP_SECRET_KEY: is under 32 bytes; set it to the output of `openssl rand -hex 32`")
        if self.app.debug:
            faults.append("APP_DEBUG: must be off in production")
        if self.app.example_data:
            faults.append("APP_EXAMPLE_DATA: must be off in production")
        if "*" in self.cors.allowed and self.cors.credentials:
            faults.append("CORS_ORIGINS: `*` cannot be combined with CORS_CREDENTIALS; name the origins")
        urls = {name: getattr(self.database, name) for name in ("url", "direct_url", "replica_url")}
        for name, url in urls.items():
            if url and not self.database.allow_plaintext and not _asks_for_tls(make_url(url)):
                faults.append(
                    f"DATABASE_{name.upper()}: has no TLS; add ?sslmode=verify-full, or set "
                    "DATABASE_ALLOW_PLAINTEXT=true where the network is private"
                )
        return faults


def _asks_for_tls(url: URL) -> bool:
    return url.query.get("ssl") in TLS_MODES


def available_cores() -> int:
    """The cores this process may use: its affinity, and the CPU limit of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_LIMIT.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def load_settings() -> Settings:
    """Read the environment. Raises ConfigurationError that names every fault."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentences(error))) from error
    except UnreadableSettingsError as error:
        raise ConfigurationError(str(error)) from error
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: cannot be read by this user ({error.strerror})") from error


def _sentences(error: ValidationError) -> list[str]:
    sentences = []
    for fault in error.errors():
        name = "_".join(str(part) for part in fault["loc"]).upper()
        message = fault["msg"].removeprefix("Value error, ")
        sentences.append(f"{name}: {message}" if name else message)
    return sentences


@lru_cache
def get_settings() -> Settings:
    """The process's settings; for entry points only, everything else is handed what it needs."""
    return load_settings()
