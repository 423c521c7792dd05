from tests.app.conftest import empty_tables, settings
from tests.faults.serving import serve

__all__ = ["empty_tables", "serve", "settings"]
