"""Settings of the database: `DATABASE_URL` is `settings.database.url`, and so on."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from plinth.database.urls import Address, parse

LOCAL_URL = "postgresql://postgres@127.0.0.1:5432/"
JOB_SECONDS = 10.0


def _checked(url: SecretStr) -> SecretStr:
    if text := url.get_secret_value():
        parse(text)
    return url


PostgresURL = Annotated[SecretStr, AfterValidator(_checked)]


class DatabaseSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)

    url: PostgresURL = Field(
        SecretStr(""),  # plinth.settings names it after the service
        description="PostgreSQL 16 or newer; `?sslmode=verify-full` asks for TLS. Unset: local, named after APP_NAME.",
    )
    direct_url: PostgresURL | None = Field(
        None, description="Past a connection pooler, for migrations and long loads. Unset: DATABASE_URL."
    )
    replica_url: PostgresURL | None = Field(
        None, description="A streaming replica, which answers reads. Unset: the primary does."
    )
    replica_lag_seconds: float = Field(
        2.0, gt=0, le=3600, description="A replica further behind is not read; after a write, none is for so long."
    )
    wait_seconds: float = Field(30.0, ge=0, le=86_400, description="Longest wait for the database at the start.")
    require_migrated: bool = Field(True, description="Refuse to start on a database that lacks migrations.")
    allow_plaintext: bool = Field(False, description="Let production reach its database without TLS.")
    pool_size: int = Field(8, ge=1, le=10_000, description="Connections for transactions, per worker.")
    read_pool_size: int = Field(
        10, ge=1, le=10_000, description="Connections for reads without a transaction, per worker."
    )
    pool_timeout_seconds: float = Field(0.5, gt=0, le=86_400, description="Wait for a free connection; then 503.")
    pool_recycle_seconds: int = Field(1800, ge=1, le=31_536_000, description="Age at which a connection is replaced.")
    connect_timeout_seconds: float = Field(
        1.0, gt=0, le=86_400, description="Wait for PostgreSQL to accept a connection; more where it is far away."
    )
    statement_timeout_seconds: float = Field(10.0, gt=0, le=86_400, description="Longest time one statement may run.")
    slow_statement_seconds: float = Field(0.5, gt=0, description="A slower statement is logged with its SQL.")
    explain_slow: bool | None = Field(None, description="Log the plan of slow statements too. Unset: in development.")
    statement_comments: bool = Field(True, description="Append the route to each statement, or the name of the job.")
    held_seconds: float = Field(
        10.0,
        gt=0,
        description="A transaction that takes longer is logged, with the stack that began it.",
    )
    cursor_key: SecretStr | None = Field(
        None, min_length=32, description="Signs the cursors of lists, so that no client makes its own. Unset: unsigned."
    )
    exports: int = Field(2, ge=1, le=1000, description="Exports at once, per worker; more are answered 503.")
    export_seconds: float = Field(3600.0, gt=0, le=86_400, description="Longest time one export may take.")
    prepared_statements: bool = Field(
        True, description="Off behind PgBouncer in transaction mode, unless it is 1.21 or newer and keeps them."
    )

    @property
    def address(self) -> Address:
        return parse(self.url.get_secret_value() or LOCAL_URL)

    @property
    def is_local_default(self) -> bool:
        return self.url.get_secret_value().startswith(LOCAL_URL)

    @property
    def direct(self) -> Self:
        """For statements that need a server session of their own, or more time than a pooler allows."""
        return self.model_copy(update={"url": self.direct_url or self.url, "replica_url": None})

    @property
    def for_jobs(self) -> Self:
        """No client waits for a job, so that it may wait longer for a free connection."""
        return self.model_copy(update={"pool_timeout_seconds": max(JOB_SECONDS, self.pool_timeout_seconds)})

    @model_validator(mode="after")
    def _prepare_nothing_behind_a_pooler(self) -> Self:
        if self.address.pooled and "prepared_statements" not in self.model_fields_set:
            self.prepared_statements = False
        return self

    def production_faults(self) -> Iterator[str]:
        """What must not be so in production, a sentence each that begins with the variable."""
        if not self.url.get_secret_value():
            yield "DATABASE_URL: is missing; set it to postgresql://user:password@host:5432/name?sslmode=verify-full"
        if self.allow_plaintext:
            return
        for name, address in self.addresses():
            if address.is_plaintext:
                yield (
                    f"{name}: has no TLS; add ?sslmode=verify-full (or set PGSSLMODE where the platform writes the "
                    "URL), or set DATABASE_ALLOW_PLAINTEXT=true where the network is private"
                )

    def addresses(self) -> Iterator[tuple[str, Address]]:
        """The variables that name a database, and what they say."""
        for name in ("url", "direct_url", "replica_url"):
            if (url := getattr(self, name)) and url.get_secret_value():
                yield f"DATABASE_{name.upper()}", parse(url.get_secret_value())
