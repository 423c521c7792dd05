from tests.app.conftest import client, empty_tables, service, settings

__all__ = ["client", "empty_tables", "service", "settings"]
