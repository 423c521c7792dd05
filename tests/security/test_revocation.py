"""Sessions that have ended, as another process of the service sees them."""

import asyncio

from httpx import AsyncClient

from app.enums import Role
from app.settings import Settings
from tests.app.accounts import PASSWORD, headers_of, logins_of
from tests.faults.serving import Serve, serve

__all__ = ["serve"]

WITHIN_SECONDS = 2


async def me(client: AsyncClient, headers: dict[str, str]) -> int:
    return (await client.get("/api/users/me", headers=headers)).status_code


async def ends(here: AsyncClient, there: AsyncClient, headers: dict[str, str]) -> None:
    """In the process that ended it at once, and in the other one in time."""
    assert await me(here, headers) == 401
    async with asyncio.timeout(WITHIN_SECONDS):
        while await me(there, headers) != 401:
            pass


async def test_sessions_end_in_every_process(serve: Serve, settings: Settings, accounts: None) -> None:
    first, second, third = (headers_of(settings, Role.USER, login) for login in logins_of(Role.USER))
    with serve() as one, serve() as other:
        async with AsyncClient(base_url=one.address) as here, AsyncClient(base_url=other.address) as there:
            for headers in (first, second, third):
                assert (await me(here, headers), await me(there, headers)) == (200, 200)  # which both remember
            assert (await here.post("/api/auth/logout", json={}, headers=first)).status_code == 204
            await ends(here, there, first)
            assert (await me(here, second), await me(there, second)) == (200, 200)
            change = {"current_password": PASSWORD, "new_password": "a much longer one"}
            assert (await here.post("/api/auth/password/change", json=change, headers=second)).status_code == 204
            await ends(here, there, third)
            assert (await me(here, second), await me(there, second)) == (200, 200)
