"""The two endpoints whose costs are compared do the same, except for the check of the token."""

from collections.abc import AsyncIterator
from random import Random

import pytest
from httpx import AsyncClient

from app.settings import Settings
from benchmarks import bearer
from benchmarks.secured import create_secured_app
from plinth.testing.client import serve


@pytest.fixture
async def secured(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with serve(create_secured_app(settings)) as service, service.client() as client:
        yield client


async def test_both_respond_as_the_app_to_the_requests_that_are_sent(
    catalogue: AsyncClient, secured: AsyncClient
) -> None:
    for scenario in bearer.SCENARIOS:
        _, path, *header = next(scenario.lines(Random(1), 20, 1)).split(" ", 2)
        headers = dict(each.split(": ") for each in header)
        response = await secured.get(path, headers=headers)
        expected = (await catalogue.get(f"/api/products/{path.rpartition('/')[2]}")).json()
        assert (response.status_code, response.json()) == (200, expected)
        assert bool(headers) == (scenario.name == bearer.BEHIND)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {bearer.TOKEN}"}])
async def test_one_is_refused_without_the_token(
    catalogue: AsyncClient, secured: AsyncClient, headers: dict[str, str]
) -> None:
    response = await secured.get("/benchmark/secured/7", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (await secured.get("/benchmark/open/7", headers=headers)).status_code == 200
