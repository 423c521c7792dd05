"""The endpoints whose costs are compared do the same, except for how they find out who sends the request."""

from collections.abc import AsyncIterator
from random import Random

import pytest
from httpx import AsyncClient

from app.enums import Role
from app.settings import Settings
from benchmarks import bearer
from benchmarks.secured import create_secured_app
from plinth.testing.client import serve
from tests.app.accounts import headers_of


@pytest.fixture
async def secured(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with serve(create_secured_app(settings)) as service, service.client() as client:
        yield client


@pytest.fixture
def access_token(settings: Settings) -> str:
    return headers_of(settings, Role.EDITOR)["Authorization"]


async def test_all_respond_as_the_app_to_the_requests_that_are_sent(
    catalogue: AsyncClient, secured: AsyncClient, access_token: str
) -> None:
    for scenario in bearer.scenarios(access_token):
        _, path, *header = next(scenario.lines(Random(1), 20, 1)).split(" ", 2)
        headers = dict(each.split(": ") for each in header)
        response = await secured.get(path, headers=headers)
        expected = (await catalogue.get(f"/api/products/{path.rpartition('/')[2]}")).json()
        assert (response.status_code, response.json()) == (200, expected)
        assert bool(headers) == (scenario.name != bearer.WITHOUT)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {bearer.TOKEN}"}])
async def test_those_with_a_principal_refuse_any_other(
    catalogue: AsyncClient, secured: AsyncClient, headers: dict[str, str]
) -> None:
    for path in ("/benchmark/secured/7", "/benchmark/signed-in/7"):
        response = await secured.get(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await secured.get("/benchmark/open/7", headers=headers)).status_code == 200


async def test_a_token_is_accepted_by_the_endpoint_that_it_is_for(
    catalogue: AsyncClient, secured: AsyncClient, access_token: str
) -> None:
    other = {"Authorization": f"Bearer {bearer.TOKEN}"}
    assert (await secured.get("/benchmark/signed-in/7", headers=other)).status_code == 401
    assert (await secured.get("/benchmark/secured/7", headers={"Authorization": access_token})).status_code == 401
