"""What every connection to PostgreSQL carries: the service's name and its time limits."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import make_url

from plinth.database.query import DIALECT
from plinth.database.settings import DatabaseSettings

PREPARED_STATEMENTS = 500  # kept by each connection
READ_ONLY = {"default_transaction_read_only": "on"}


class Generation:
    """The number of times that connections to a server were lost, which all pools of a process for it share.

    A server that ends one connection has usually ended all of them, or is about to. So each loss begins a new
    generation, and a connection of an earlier one is replaced before it is used again.
    """

    def __init__(self) -> None:
        self.number = 0

    def lost(self, number: int) -> None:
        """Record that a connection of generation `number` was lost."""
        if number == self.number:  # otherwise it was lost together with those before it
            self.number += 1


def connection_options(settings: DatabaseSettings, application_name: str) -> dict[str, Any]:
    """Arguments of `asyncpg.connect()`, but for the address."""
    return {
        "timeout": settings.connect_timeout_seconds,
        # The server ends a statement that is too slow; the client only one whose server no longer responds.
        "command_timeout": settings.statement_timeout_seconds + 1,
        "statement_cache_size": PREPARED_STATEMENTS if settings.prepared_statements else 0,
        "server_settings": {
            "application_name": application_name,
            "statement_timeout": str(int(settings.statement_timeout_seconds * 1000)),
            "jit": "off",  # planning short statements would cost more than it saves
        },
    }


def driver_arguments(
    settings: DatabaseSettings, application_name: str, server_settings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Arguments of `asyncpg.connect()`: the address in the settings, and `connection_options`."""
    _, address = DIALECT.create_connect_args(make_url(settings.url))  # type: ignore[no-untyped-call]
    options = connection_options(settings, application_name)
    options["server_settings"] |= server_settings or {}
    return {**address, **options}
