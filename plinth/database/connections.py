"""What every connection to PostgreSQL carries: the service's name and its time limits."""

import re
from collections.abc import Mapping
from typing import Any

from plinth.database.settings import DatabaseSettings

PREPARED_STATEMENTS = 500  # kept by each connection
READ_ONLY = {"default_transaction_read_only": "on"}
OPTION = re.compile(r"(?:-c\s*|--)([\w.]+)=")


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
