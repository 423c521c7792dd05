"""What every connection to PostgreSQL carries: the service's name and its time limits."""

import re
from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson

from plinth.database.settings import DatabaseSettings

PREPARED_STATEMENTS = 500  # kept by each connection
READ_ONLY = {"default_transaction_read_only": "on"}
OPTION = re.compile(r"(?:-c\s*|--)([\w.]+)=")


def pooled_connections(settings: DatabaseSettings) -> int:
    """What a process may open in its pools, and for its readiness."""
    return settings.pool_size + settings.read_pool_size + 1


def unpooled_connections(settings: DatabaseSettings) -> int:
    """What a worker of the server may open beside them: for exports, and for notifications."""
    return settings.exports + 1


def driver_arguments(
    settings: DatabaseSettings, application_name: str, server_settings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Arguments of `asyncpg.connect()`. What the URL says precedes the other settings."""
    address = settings.address
    ours = {
        "application_name": application_name,
        "statement_timeout": str(max(1, round(settings.statement_timeout_seconds * 1000))),
        "jit": "off",  # planning short statements would cost more than it saves
    }
    in_options = set(OPTION.findall(address.server_settings.get("options", "")))
    return {
        "timeout": settings.connect_timeout_seconds,
        # The server ends a statement that is too slow; the client only one whose server no longer responds.
        "command_timeout": settings.statement_timeout_seconds + 1,
        "statement_cache_size": PREPARED_STATEMENTS if settings.prepared_statements else 0,
        "server_settings": {
            **{name: value for name, value in ours.items() if name not in in_options},
            **address.server_settings,
            **(server_settings or {}),
        },
        **address.connect_arguments(),
    }


def is_read_only(connection: Any) -> bool:
    """PostgreSQL reports the parameter when a connection is made, so that this costs no round trip."""
    return getattr(connection.get_settings(), "default_transaction_read_only", "off") == "on"


async def set_codecs(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):  # SQLAlchemy's types leave these to the driver
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=orjson.loads)


async def keep_state(connection: asyncpg.Connection) -> None:
    """Nothing to reset after a read. asyncpg's own reset would be a second round trip."""
