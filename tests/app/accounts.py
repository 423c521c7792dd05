"""The accounts of the tests: one of each role, whose ids and sessions are known."""

from uuid import UUID

import asyncpg

from app.enums import Role
from app.settings import Settings
from plinth.security import Tokens, hash_secret

PASSWORD = "testpass123"
# Computed once, since each hash takes as long as ten tests.
HASH = "$argon2id$v=19$m=19456,t=2,p=1$UQTt/JniqhvWFLhbgWDluw$Seblqzv1mnJz+hHZXeT6QfY977JcCiv68iG8RCq2o7Q"
IDS = {Role.USER: 1, Role.EDITOR: 2, Role.ADMIN: 3}
LOGINS = 3
REFRESH_TOKEN = "refresh_" + "r" * 43
VERIFY_TOKEN, RESET_TOKEN = "v" * 43, "p" * 43


def email_of(role: Role) -> str:
    return f"{role}@example.com"


def logins_of(role: Role) -> list[UUID]:
    """The sessions of an account, of which the first is that of its requests."""
    return [UUID(int=10 * IDS[role] + number) for number in range(LOGINS)]


def token_of(settings: Settings, role: Role, login: UUID | None = None) -> str:
    tokens = Tokens(settings.auth, settings.app.signing_key, settings.app.identifier)
    return tokens.issue(str(IDS[role]), str(login or logins_of(role)[0]), ())


def headers_of(settings: Settings, role: Role, login: UUID | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(settings, role, login)}"}


async def add_accounts(onlooker: asyncpg.Connection) -> None:
    """Make the accounts, or make them again as they were."""
    await onlooker.execute("DELETE FROM plinth_login_attempts")
    await onlooker.execute("DELETE FROM plinth_jobs WHERE name = 'account_mail'")
    await onlooker.execute("DELETE FROM users")
    await onlooker.executemany(
        "INSERT INTO users (id, email, name, password_hash, role, verified_at) OVERRIDING SYSTEM VALUE"
        " VALUES ($1, $2, $3, $4, $5, now())",
        [(id, email_of(role), role.title(), HASH, role.value) for role, id in IDS.items()],
    )
    await onlooker.execute("SELECT setval(pg_get_serial_sequence('users', 'id'), $1)", max(IDS.values()))
    await onlooker.executemany(
        "INSERT INTO logins (id, user_id, user_agent, expires_at) VALUES ($1, $2, 'tests', now() + interval '1 day')",
        [(login, id) for role, id in IDS.items() for login in logins_of(role)],
    )
    await onlooker.execute(
        "INSERT INTO refresh_tokens (hash, login_id) VALUES ($1, $2)",
        hash_secret(REFRESH_TOKEN),
        logins_of(Role.ADMIN)[0],
    )
    await onlooker.executemany(
        "INSERT INTO mail_tokens (hash, user_id, purpose, expires_at) VALUES ($1, $2, $3, now() + interval '1 hour')",
        [(hash_secret(VERIFY_TOKEN), 1, "verify"), (hash_secret(RESET_TOKEN), 1, "reset")],
    )
