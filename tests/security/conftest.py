"""The app on real servers, as an attacker finds it."""

from tests.app.conftest import accounts, anonymous, client, empty_tables, service, settings

__all__ = ["accounts", "anonymous", "client", "empty_tables", "service", "settings"]
