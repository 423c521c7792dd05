"""Some tests of plinth are of it in the service."""

from tests.app.conftest import accounts, client, empty_tables, service, settings

__all__ = ["accounts", "client", "empty_tables", "service", "settings"]
