"""The life of an account: registered, confirmed, signed in to, and taken back from others."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from httpx import AsyncClient
from jwt import PyJWK, decode
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.enums import Role
from app.main import create_app
from app.settings import Settings
from plinth.security import Passwords, hash_secret
from plinth.testing.client import Service, serve
from plinth.testing.wire import WirePostgres
from tests.app.accounts import HASH, PASSWORD, REFRESH_TOKEN, RESET_TOKEN, email_of, headers_of, logins_of
from tests.app.mailbox import Mails, read_mails, token_in
from tests.app.meeting import while_locked

NEW_PASSWORD = "correct horse battery"
ADA = {"email": "Ada@Example.com", "password": "a quiet fan", "name": "Ada Lovelace"}
WRONG = "The email address or the password is wrong."


@pytest.fixture
def mails(settings: Settings, tmp_path: Path, onlooker: asyncpg.Connection) -> Mails:
    mail = settings.mail.model_copy(update={"folder": tmp_path})
    app = settings.app.model_copy(update={"public_url": "https://shop.example.com/"})
    return partial(read_mails, settings.model_copy(update={"mail": mail, "app": app}), tmp_path, onlooker)


def bearer(pair: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {pair['access_token']}"}


async def sign_in(client: AsyncClient, email: str, password: str = PASSWORD) -> dict[str, Any]:
    answer = await client.post("/api/auth/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    pair: dict[str, Any] = answer.json()
    return pair


async def status_of(client: AsyncClient, pair: dict[str, Any]) -> int:
    return (await client.get("/api/users/me", headers=bearer(pair))).status_code


async def refresh(client: AsyncClient, token: str) -> Any:
    return await client.post("/api/auth/refresh", json={"refresh_token": token})


async def test_an_account_is_registered_confirmed_signed_in_to_and_out_of(
    anonymous: AsyncClient, mails: Mails, onlooker: asyncpg.Connection
) -> None:
    registered = await anonymous.post("/api/auth/register", json=ADA)
    assert (registered.status_code, registered.json()) == (201, {"email": "ada@example.com", "name": "Ada Lovelace"})
    pair = await sign_in(anonymous, "ADA@example.com", ADA["password"])
    assert (pair["token_type"], pair["expires_in"]) == ("bearer", 900)
    me = (await anonymous.get("/api/users/me", headers=bearer(pair))).json()
    assert (me["email"], me["role"], me["verified_at"]) == ("ada@example.com", "user", None)
    [mail] = await mails()
    assert (mail["Subject"], mail["To"]) == ("Confirm your email address", "Ada Lovelace <ada@example.com>")
    assert "https://shop.example.com/verify-email#token=" in mail.get_content()
    confirmation = {"token": token_in(mail)}
    assert (await anonymous.post("/api/auth/verify-email", json=confirmation)).status_code == 204
    assert (await anonymous.get("/api/users/me", headers=bearer(pair))).json()["verified_at"] is not None
    assert (await anonymous.post("/api/auth/verify-email", json=confirmation)).status_code == 422  # once
    logout = await anonymous.post("/api/auth/logout", json={}, headers=bearer(pair))
    assert (logout.status_code, logout.content) == (204, b"")
    assert await status_of(anonymous, pair) == 401
    assert (await refresh(anonymous, pair["refresh_token"])).status_code == 401


async def test_no_secret_is_stored_and_none_is_cached_by_clients(
    anonymous: AsyncClient, mails: Mails, onlooker: asyncpg.Connection
) -> None:
    await anonymous.post("/api/auth/register", json=ADA)
    jobs = await onlooker.fetch("SELECT payload::text, context::text FROM plinth_jobs WHERE name = 'account_mail'")
    [mail] = await mails()
    answer = await anonymous.post("/api/auth/login", json={"email": "ada@example.com", "password": ADA["password"]})
    assert answer.headers["Cache-Control"] == "no-store"
    secrets = [ADA["password"], token_in(mail), answer.json()["refresh_token"], answer.json()["access_token"]]
    tables = ("users", "logins", "refresh_tokens", "mail_tokens", "plinth_jobs", "plinth_login_attempts")
    stored = str(jobs) + "".join([str(await onlooker.fetch(f"SELECT * FROM {table}")) for table in tables])
    assert [secret for secret in secrets if secret in stored] == []
    assert await onlooker.fetchval("SELECT password_hash FROM users WHERE name LIKE 'Ada%'") > "$argon2id$"


async def test_who_has_an_account_already_learns_it_by_mail_alone(
    anonymous: AsyncClient, mails: Mails, onlooker: asyncpg.Connection
) -> None:
    taken = {**ADA, "email": email_of(Role.USER)}
    one = await anonymous.post("/api/auth/register", json={**taken, "email": "new@example.com"})
    other = await anonymous.post("/api/auth/register", json=taken)
    assert other.status_code == one.status_code == 201
    assert {*other.headers} == {*one.headers}
    assert other.json() == {**one.json(), "email": email_of(Role.USER)}
    assert [mail["Subject"] for mail in await mails()] == ["Confirm your email address", "You have an account already"]
    assert await onlooker.fetchval("SELECT name FROM users WHERE id = 1") == "User"
    await sign_in(anonymous, email_of(Role.USER))  # with its old password


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("password123", "first to be guessed"),
        ("ADA@example.com", "must not be the name"),
        ("short", "10 to 128 characters"),
        ("xyz " * 33, "10 to 128 characters"),
    ],
)
async def test_a_password_that_is_easily_guessed_is_refused(
    anonymous: AsyncClient, onlooker: asyncpg.Connection, password: str, sentence: str
) -> None:
    answer = await anonymous.post("/api/auth/register", json={**ADA, "password": password})
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert (fault["pointer"], sentence in fault["detail"]) == ("#/password", True), fault
    assert await onlooker.fetchval("SELECT count(*) FROM users") == 3


@pytest.mark.parametrize("field", ["role", "id", "is_active", "verified_at", "is_verified", "password_hash", "version"])
async def test_nobody_registers_with_more_than_they_may_set(anonymous: AsyncClient, field: str) -> None:
    answer = await anonymous.post("/api/auth/register", json={**ADA, field: "admin"})
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"#/{field}"]


async def test_the_form_of_oauth_signs_in_too(anonymous: AsyncClient) -> None:
    form = {"grant_type": "password", "username": email_of(Role.EDITOR), "password": PASSWORD, "scope": "a b"}
    answer = await anonymous.post("/api/auth/token", data=form)
    assert await status_of(anonymous, answer.json()) == 200
    assert (await anonymous.post("/api/auth/token", data={**form, "password": "no"})).status_code == 401
    for wrong in ({**form, "grant_type": "implicit"}, {"username": email_of(Role.EDITOR)}, {**form, "role": "admin"}):
        assert (await anonymous.post("/api/auth/token", data=wrong)).status_code == 422


# Refresh tokens.


async def test_each_exchange_makes_another_pair(anonymous: AsyncClient) -> None:
    first = await sign_in(anonymous, email_of(Role.USER))
    second = (await refresh(anonymous, first["refresh_token"])).json()
    third = (await refresh(anonymous, second["refresh_token"])).json()
    assert len({pair["refresh_token"] for pair in (first, second, third)}) == 3
    assert await status_of(anonymous, third) == 200


async def test_a_retried_exchange_succeeds_and_a_late_one_ends_the_session(
    anonymous: AsyncClient, onlooker: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    first = await sign_in(anonymous, email_of(Role.USER))
    other = await sign_in(anonymous, email_of(Role.USER))
    answers = await asyncio.gather(*(refresh(anonymous, first["refresh_token"]) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    second = answers[0].json()
    assert await status_of(anonymous, second) == 200
    used = "UPDATE refresh_tokens SET used_at = used_at - interval '11 s' WHERE hash = $1"
    await onlooker.execute(used, hash_secret(first["refresh_token"]))
    assert (await refresh(anonymous, first["refresh_token"])).status_code == 401
    assert "was used twice" in caplog.text
    for pair in (first, second):
        assert await status_of(anonymous, pair) == 401
        assert (await refresh(anonymous, pair["refresh_token"])).status_code == 401
    assert await status_of(anonymous, other) == 200  # another family


async def test_a_use_within_the_grace_does_not_prolong_it(anonymous: AsyncClient, onlooker: asyncpg.Connection) -> None:
    pair = await sign_in(anonymous, email_of(Role.USER))
    hash = hash_secret(pair["refresh_token"])
    await refresh(anonymous, pair["refresh_token"])
    await onlooker.execute("UPDATE refresh_tokens SET used_at = used_at - interval '9 s' WHERE hash = $1", hash)
    before = await onlooker.fetchval("SELECT used_at FROM refresh_tokens WHERE hash = $1", hash)
    assert (await refresh(anonymous, pair["refresh_token"])).status_code == 200
    assert await onlooker.fetchval("SELECT used_at FROM refresh_tokens WHERE hash = $1", hash) == before


@pytest.mark.parametrize(
    "change",
    ["UPDATE logins SET expires_at = now()", "UPDATE users SET is_active = false", "DELETE FROM logins"],
)
async def test_a_session_that_has_ended_is_not_refreshed(
    anonymous: AsyncClient, onlooker: asyncpg.Connection, change: str
) -> None:
    await onlooker.execute(change)
    assert (await refresh(anonymous, REFRESH_TOKEN)).status_code == 401


@pytest.mark.parametrize("token", ["", "refresh_", "r" * 43, "refresh_" + "x" * 43, "refresh_ü"])
async def test_what_is_no_refresh_token_is_refused(anonymous: AsyncClient, token: str) -> None:
    assert (await refresh(anonymous, token)).status_code == 401


# Passwords.


async def test_a_forgotten_password_is_reset_by_mail_which_ends_all_sessions(
    anonymous: AsyncClient, mails: Mails
) -> None:
    pair = await sign_in(anonymous, email_of(Role.USER))
    assert (await anonymous.post("/api/auth/password/forgot", json={"email": "User@example.com"})).status_code == 202
    [mail] = await mails()
    assert mail["Subject"] == "Reset your password"
    reset = {"token": token_in(mail), "password": NEW_PASSWORD}
    common = {**reset, "password": "password123"}
    assert (await anonymous.post("/api/auth/password/reset", json=common)).status_code == 422
    assert (await anonymous.post("/api/auth/password/reset", json=reset)).status_code == 204
    assert (await anonymous.post("/api/auth/password/reset", json=reset)).status_code == 422  # once
    assert await status_of(anonymous, pair) == 401
    assert (await refresh(anonymous, pair["refresh_token"])).status_code == 401
    await sign_in(anonymous, email_of(Role.USER), NEW_PASSWORD)
    old = await anonymous.post("/api/auth/login", json={"email": email_of(Role.USER), "password": PASSWORD})
    assert old.status_code == 401
    assert [mail["Subject"] for mail in await mails()] == ["Your password was changed"]


async def test_no_mail_is_sent_to_an_unknown_or_inactive_account(
    anonymous: AsyncClient, mails: Mails, onlooker: asyncpg.Connection
) -> None:
    await onlooker.execute("UPDATE users SET is_active = false WHERE id = 1")
    for email in (email_of(Role.USER), "nobody@example.com"):
        assert (await anonymous.post("/api/auth/password/forgot", json={"email": email})).status_code == 202
    assert await mails() == []
    assert await onlooker.fetchval("SELECT count(*) FROM mail_tokens WHERE expires_at > now() + interval '61 min'") == 0


@pytest.mark.parametrize("change", ["expires_at = now()", "purpose = 'verify'", "user_id = 2"])
async def test_a_link_is_valid_for_its_purpose_its_time_and_its_account(
    anonymous: AsyncClient, mails: Mails, onlooker: asyncpg.Connection, change: str
) -> None:
    await anonymous.post("/api/auth/password/forgot", json={"email": email_of(Role.USER)})
    [mail] = await mails()
    await onlooker.execute(f"UPDATE mail_tokens SET {change} WHERE hash = $1", hash_secret(token_in(mail)))
    await onlooker.execute("UPDATE users SET is_active = false WHERE id = 2")
    reset = {"token": token_in(mail), "password": NEW_PASSWORD}
    answer = await anonymous.post("/api/auth/password/reset", json=reset)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/token")
    await sign_in(anonymous, email_of(Role.USER))


async def test_a_changed_password_ends_all_other_sessions(anonymous: AsyncClient, mails: Mails) -> None:
    mine, other = [await sign_in(anonymous, email_of(Role.USER)) for _ in range(2)]
    assert await status_of(anonymous, other) == 200
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

    async def changed(data: dict[str, str]) -> Any:
        return await anonymous.post("/api/auth/password/change", json=data, headers=bearer(mine))

    wrong = await changed({**change, "current_password": "wrong"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "#/current_password")
    weak = await changed({**change, "new_password": email_of(Role.USER)})
    assert (weak.status_code, weak.json()["errors"][0]["pointer"]) == (422, "#/new_password")
    assert await status_of(anonymous, other) == 200
    assert (await changed(change)).status_code == 204
    assert await status_of(anonymous, mine) == 200
    assert await status_of(anonymous, other) == 401
    await sign_in(anonymous, email_of(Role.USER), NEW_PASSWORD)
    assert [mail["Subject"] for mail in await mails()] == ["Your password was changed"]


async def test_a_stolen_session_cannot_guess_the_password(anonymous: AsyncClient) -> None:
    pair = await sign_in(anonymous, email_of(Role.USER))
    change = {"current_password": "wrong", "new_password": NEW_PASSWORD}
    statuses = [
        (await anonymous.post("/api/auth/password/change", json=change, headers=bearer(pair))).status_code
        for _ in range(8)
    ]
    assert statuses == [422] * 6 + [429] * 2


async def test_a_hash_of_weaker_parameters_is_replaced_when_its_owner_signs_in(
    anonymous: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    weak = PasswordHash([Argon2Hasher(time_cost=1, memory_cost=1024, parallelism=1)]).hash(PASSWORD)
    await onlooker.execute("UPDATE users SET password_hash = $1 WHERE id = 1", weak)
    await sign_in(anonymous, email_of(Role.USER))
    stored = await onlooker.fetchval("SELECT password_hash FROM users WHERE id = 1")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await sign_in(anonymous, email_of(Role.USER))


async def test_logging_out_everywhere_ends_all_sessions(anonymous: AsyncClient) -> None:
    pairs = [await sign_in(anonymous, email_of(Role.USER)) for _ in range(3)]
    editor = await sign_in(anonymous, email_of(Role.EDITOR))
    assert [await status_of(anonymous, pair) for pair in pairs] == [200] * 3
    await anonymous.post("/api/auth/logout", json={"all": True}, headers=bearer(pairs[0]))
    assert [await status_of(anonymous, pair) for pair in pairs] == [401] * 3
    assert await status_of(anonymous, editor) == 200


# What happens at the same time.


async def test_a_password_that_is_changed_while_it_is_verified_begins_no_session(
    anonymous: AsyncClient, onlooker: asyncpg.Connection, database_url: str
) -> None:
    credentials = {"email": email_of(Role.USER), "password": PASSWORD}
    before = await onlooker.fetchval("SELECT count(*) FROM logins")
    for change in ("password_hash = 'other'", f"password_hash = '{HASH}', is_active = false"):
        answer = await while_locked(
            onlooker,
            database_url,
            f"UPDATE users SET {change} WHERE id = 1",
            lambda: anonymous.post("/api/auth/login", json=credentials),
        )
        assert (answer.status_code, answer.json()["detail"]) == (401, WRONG)
        await onlooker.execute("UPDATE users SET password_hash = $1, is_active = true WHERE id = 1", HASH)
    assert await onlooker.fetchval("SELECT count(*) FROM logins") == before


async def test_a_session_that_ends_while_it_is_refreshed_has_ended(
    anonymous: AsyncClient, onlooker: asyncpg.Connection, database_url: str
) -> None:
    answer = await while_locked(onlooker, database_url, "DELETE FROM logins", lambda: refresh(anonymous, REFRESH_TOKEN))
    assert answer.status_code == 401
    assert await onlooker.fetchval("SELECT count(*) FROM refresh_tokens") == 0


async def test_of_many_uses_of_a_link_at_once_one_succeeds(anonymous: AsyncClient) -> None:
    reset = {"token": RESET_TOKEN, "password": NEW_PASSWORD}
    answers = await asyncio.gather(*(anonymous.post("/api/auth/password/reset", json=reset) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [204] + [422] * 4


# What others may learn.


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the thread for passwords was given to do."""
    computed: list[str] = []
    run = Passwords._run

    async def counted(self: Passwords, function: Any) -> Any:
        computed.append(function.func.__name__)
        return await run(self, function)

    monkeypatch.setattr(Passwords, "_run", counted)
    return computed


@pytest.mark.parametrize(
    ("path", "bodies", "status"),
    [
        (
            "/api/auth/login",
            [
                {"email": "nobody@example.com", "password": PASSWORD},
                {"email": email_of(Role.USER), "password": "wrong"},
                {"email": email_of(Role.EDITOR), "password": PASSWORD},  # inactive
                {"email": email_of(Role.EDITOR), "password": "wrong"},
            ],
            401,
        ),
        (
            "/api/auth/register",
            [ADA, *({**ADA, "email": email_of(role)} for role in (Role.USER, Role.EDITOR))],
            201,
        ),
        (
            "/api/auth/password/forgot",
            [{"email": each} for each in ("nobody@example.com", email_of(Role.USER), email_of(Role.EDITOR))],
            202,
        ),
    ],
)
async def test_whether_an_account_exists_makes_no_difference(
    *,
    settings: Settings,
    wire: WirePostgres,
    onlooker: asyncpg.Connection,
    accounts: None,
    hashes: list[str],
    path: str,
    bodies: list[dict[str, str]],
    status: int,
) -> None:
    """Neither in the answer nor in the work: hashes and statements, in their order."""
    await onlooker.execute("UPDATE users SET is_active = false WHERE id = 2")
    one_each = {"url": wire.through(settings.database.url), "pool_size": 1, "read_pool_size": 1}
    changed = {"database": settings.database.model_copy(update=one_each)}
    seen = []
    async with serve(create_app(settings.model_copy(update=changed))) as service, service.client() as client:
        await client.post(path, json={**bodies[0], "email": "first@example.com"})  # prepares the statements
        for body in bodies:
            hashes.clear()
            with wire.counting() as count:
                answer = await client.post(path, json=body)
            assert answer.status_code == status, answer.text
            shown = answer.json() if answer.content and status != 202 else None
            if shown:
                shown = {name: value for name, value in shown.items() if name not in {"request_id", "email"}}
            names = {*answer.headers}
            seen.append((shown, names, count.statements, count.round_trips, [*hashes]))
    assert all(each == seen[0] for each in seen[1:]), seen
    assert len(seen[0][-1]) == (0 if status == 202 else 1)  # one hash each


async def test_guessing_is_slowed_down_the_same_for_an_account_that_does_not_exist(anonymous: AsyncClient) -> None:
    for email in (email_of(Role.USER), "nobody@example.com"):
        answers = [
            await anonymous.post("/api/auth/login", json={"email": email, "password": "wrong"}) for _ in range(7)
        ]
        assert [answer.status_code for answer in answers] == [401] * 6 + [429]
        assert answers[0].json()["detail"] == WRONG
        assert int(answers[-1].headers["Retry-After"]) > 20
    right = await anonymous.post("/api/auth/login", json={"email": email_of(Role.USER), "password": PASSWORD})
    assert right.status_code == 429


async def test_a_session_without_redis_ends_at_once_too(settings: Settings, accounts: None) -> None:
    alone = settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": None})})
    headers = headers_of(settings, Role.USER)
    async with (
        serve(create_app(alone)) as one,
        serve(create_app(alone)) as other,
        one.client(headers) as here,
        other.client(headers) as there,
    ):
        assert [(await client.get("/api/users/me")).status_code for client in (here, there)] == [200, 200]
        await here.post("/api/auth/logout", json={})
        assert [(await client.get("/api/users/me")).status_code for client in (here, there)] == [401, 401]


async def test_a_token_of_another_session_or_user_is_refused(anonymous: AsyncClient, settings: Settings) -> None:
    editors = headers_of(settings, Role.USER, logins_of(Role.EDITOR)[0])
    assert (await anonymous.get("/api/users/me", headers=editors)).status_code == 401
    for wrong in ("", "Bearer", "Bearer ", "Basic YTpi", "Bearer key_", "Bearer key_" + "k" * 43, "Bearer a.b.c"):
        answer = await anonymous.get("/api/users/me", headers={"Authorization": wrong})
        assert answer.status_code == 401, wrong
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_keys_are_published_where_tokens_are_signed_with_a_pair(
    settings: Settings, service: Service, anonymous: AsyncClient
) -> None:
    assert (await anonymous.get("/api/auth/jwks")).json() == {"keys": []}
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    auth = settings.auth.model_validate({"algorithm": "EdDSA", "private_key": pem.decode()})
    async with serve(create_app(settings.model_copy(update={"auth": auth}))) as signing, signing.client() as client:
        pair = await sign_in(client, email_of(Role.USER))
        assert await status_of(client, pair) == 200
        [key] = (await client.get("/api/auth/jwks")).json()["keys"]
        claims = decode(pair["access_token"], PyJWK(key), ["EdDSA"], audience=settings.app.identifier)
        assert claims["sub"] == "1"
        assert await status_of(client, await sign_in(anonymous, email_of(Role.USER))) == 401  # of the secret


@pytest.mark.usefixtures("anonymous")
async def test_the_password_grant_is_served_where_the_docs_are(settings: Settings) -> None:
    form = {"username": email_of(Role.USER), "password": PASSWORD}
    for switched_on, status in ((True, 200), (False, 404)):
        http = settings.http.model_copy(update={"docs": switched_on})
        async with serve(create_app(settings.model_copy(update={"http": http}))) as service, service.client() as client:
            assert (await client.post("/api/auth/token", data=form)).status_code == status
