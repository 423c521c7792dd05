"""`app create-admin`, as a person or a script runs it."""

import asyncpg
from anyio import to_thread
from httpx import AsyncClient
from typer.testing import CliRunner, Result

from app.cli import app
from app.settings import get_settings


def create_admin(email: str, password: str, database_url: str) -> Result:
    get_settings.cache_clear()
    try:
        environment = {"DATABASE_URL": database_url, "LOG_LEVEL": "WARNING"}
        return CliRunner().invoke(app, ["create-admin", email], input=f"{password}\n", env=environment)
    finally:
        get_settings.cache_clear()


async def test_an_administrator_is_created_whose_password_is_read_from_standard_input(
    empty_tables: None, database_url: str
) -> None:
    done = await to_thread.run_sync(create_admin, "Ada@Example.com", "a quiet fan", database_url)
    assert (done.exit_code, done.output) == (0, "ada@example.com can sign in.\n")
    for email, password, sentence in (
        ("ada@example.com", "a quiet fan", "ada@example.com has an account already."),
        ("eve@example.com", "password123", "one of the first to be guessed"),
        ("eve@example.com", "", "A password has 10 to 128 characters."),
        ("eve", "a quiet fan", 'email: An email address is written like "ada@example.com".'),
    ):
        refused = await to_thread.run_sync(create_admin, email, password, database_url)
        assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert sentence in refused.stderr


async def test_an_administrator_who_was_created_can_sign_in(
    anonymous: AsyncClient, database_url: str, onlooker: asyncpg.Connection
) -> None:
    done = await to_thread.run_sync(create_admin, "ada@example.com", "a quiet fan", database_url)
    assert done.exit_code == 0, done.output
    credentials = {"email": "ada@example.com", "password": "a quiet fan"}
    pair = (await anonymous.post("/api/auth/login", json=credentials)).json()
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    assert (await anonymous.get("/api/users", headers=headers)).status_code == 200
    stored = await onlooker.fetchrow("SELECT role, verified_at FROM users WHERE name = 'Administrator'")
    assert (stored["role"], stored["verified_at"] is None) == ("admin", False)


def test_an_administrator_is_not_created_without_a_database() -> None:
    done = create_admin("ada@example.com", "a quiet fan", "postgresql://nobody@127.0.0.1:1/nothing")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "could not be stored" in done.stderr
