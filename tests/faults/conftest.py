from tests.app.conftest import empty_tables, settings
from tests.plinth.serving.conftest import serve

__all__ = ["empty_tables", "serve", "settings"]
