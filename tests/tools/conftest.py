import pytest

from tests.app.conftest import accounts, anonymous, client, empty_tables, service, settings

__all__ = ["accounts", "anonymous", "client", "empty_tables", "service", "settings"]


@pytest.fixture(autouse=True)
def no_servers_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the servers of this test run, so that the tests start their own."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
