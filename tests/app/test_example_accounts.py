"""`app seed` loads accounts, which are for signing in."""

import asyncpg
from httpx import AsyncClient

from app.example_data import EXAMPLE_ACCOUNTS, EXAMPLE_PASSWORD
from tests.app.test_cli import run


async def test_the_example_accounts_can_sign_in_and_are_not_set_back(
    anonymous: AsyncClient, database_url: str, onlooker: asyncpg.Connection
) -> None:
    await onlooker.execute("DELETE FROM users")
    run("seed", "--products=1", DATABASE_URL=database_url, APP_EXAMPLE_DATA="true")
    before = await onlooker.fetch("SELECT * FROM users ORDER BY id")
    assert {(user["email"], user["role"]) for user in before} == {*EXAMPLE_ACCOUNTS.items()}
    for email in EXAMPLE_ACCOUNTS:
        credentials = {"email": email, "password": EXAMPLE_PASSWORD}
        assert (await anonymous.post("/api/auth/login", json=credentials)).status_code == 200
    run("seed", "--products=1", DATABASE_URL=database_url, APP_EXAMPLE_DATA="true")
    assert await onlooker.fetch("SELECT * FROM users ORDER BY id") == before
