"""Some tests of plinth are of it in the service."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from plinth.database.replica import must_see
from plinth.telemetry import request_id
from plinth.telemetry.requests import current_record
from tests.app.conftest import accounts, client, empty_tables, service, settings

__all__ = ["accounts", "client", "empty_tables", "service", "settings"]

VARIABLES: tuple[ContextVar[Any], ...] = (request_id, current_record, must_see)


@pytest.fixture(autouse=True)
async def nothing_is_left(anyio_backend: object) -> AsyncIterator[None]:
    """All tests of a process run in one task. What one left in its context would decide how those after it end."""
    yield
    left = [variable.name for variable in VARIABLES if variable.get() is not None]
    for variable in VARIABLES:
        variable.set(None)
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        left.append("a request to cancel")
        task.uncancel()
    assert not left
