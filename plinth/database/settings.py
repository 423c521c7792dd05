"""Settings of the database: `DATABASE_URL` is `settings.database.url`, and so on."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

TLS_MODES = {"require", "verify-ca", "verify-full"}


def _asyncpg_url(url: str) -> str:
    """Convert the URLs of hosting platforms (`postgres://…?sslmode=`) to those of SQLAlchemy's asyncpg dialect."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError("must look like postgresql://user:password@host:5432/name") from error
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("must start with postgresql://; no other database is supported")
    query = dict(parsed.query)
    if "sslmode" in query:
        query.setdefault("ssl", query.pop("sslmode"))
    return parsed.set(drivername="postgresql+asyncpg", query=query).render_as_string(hide_password=False)


PostgresURL = Annotated[str, AfterValidator(_asyncpg_url)]


class DatabaseSettings(BaseModel):
    url: PostgresURL = Field(
        "",  # plinth.settings names it after the service
        repr=False,
        description="PostgreSQL 16 or newer; `?sslmode=verify-full` asks for TLS. Unset: local, named after APP_NAME.",
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

    def production_faults(self) -> Iterator[str]:
        """What must not be so in production, a sentence each that begins with the variable."""
        if self.allow_plaintext:
            return
        for name in ("url", "direct_url", "replica_url"):
            url = getattr(self, name)
            if url and make_url(url).query.get("ssl") not in TLS_MODES:
                yield (
                    f"DATABASE_{name.upper()}: has no TLS; add ?sslmode=verify-full, or set "
                    "DATABASE_ALLOW_PLAINTEXT=true where the network is private"
                )

    @property
    def direct(self) -> "DatabaseSettings":
        """For statements that need a server session of their own, or more time than a pooler allows."""
        return self.model_copy(update={"url": self.direct_url or self.url, "replica_url": None})
