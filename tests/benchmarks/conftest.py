import pytest
from httpx import AsyncClient

from tests.app.conftest import accounts, client, empty_tables, service, settings
from tests.app.factories import create_category, create_product

__all__ = ["accounts", "client", "empty_tables", "service", "settings"]


@pytest.fixture
async def catalogue(client: AsyncClient) -> AsyncClient:
    await create_category(client)
    for number in range(1, 25):  # more than a page
        await create_product(
            client, sku=f"LAP-{number}", price=f"{number}.05", description="Quiet, „light“ – and \\ odd."
        )
    return client
