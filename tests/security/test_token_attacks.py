"""No forged, stolen or outdated credential opens an endpoint of the app, over HTTP."""

from collections.abc import Callable

import asyncpg
import pytest
from httpx import AsyncClient, Response

from app.enums import Role
from app.settings import Settings
from plinth.security import Tokens
from plinth.testing.client import Service
from tests.app.accounts import PASSWORD, REFRESH_TOKEN, email_of, headers_of, logins_of, token_of
from tests.plinth.security.forging import NOW, OLDER, with_pair, with_secret
from tests.plinth.security.forging import Service as Forge
from tests.plinth.security.test_tokens import ATTACKS

ME = "/api/users/me"
# HTTP itself takes white space off a field's value, so these are the valid token.
TRIMMED = {"trailing_space", "trailing_line", "leading_space"}
# Signed with the right key, and about accounts or sessions that there cannot be.
IMPOSSIBLE = {
    "sub": ["admin", "1e0", "0x1", "-1", "1.0", "٣٤", str(2**63), str(2**200), "9" * 255, "' OR 1=1 --", "*"],
    "sid": ["s1", "0", "null", "1" * 5000, "{}", "' OR 1=1 --", "00000000-0000-0000-0000-000000000000", "é"],
}


def bearer(token: str) -> dict[bytes, bytes]:
    return {b"Authorization": b"Bearer " + token.encode("utf-8", "surrogatepass")}


def forge(make: Callable[[], Forge]) -> Forge:
    """Makes tokens of a user's session, and attacks on them."""
    forge = make()
    forge.claims |= {"sub": "1", "sid": str(logins_of(Role.USER)[0])}
    return forge


def beside(service: Service, tokens: Tokens) -> Service:
    return Service(service.app, {**service.state, "tokens": tokens})


def assert_refused(answer: Response) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json().keys() == {"type", "title", "status", "detail", "request_id"}


@pytest.mark.parametrize("make", [with_secret, with_pair], ids=["HS256", "EdDSA"])
async def test_no_forged_token_is_accepted(service: Service, accounts: None, make: Callable[[], Forge]) -> None:
    forged = forge(make)
    tokens = forged.tokens()
    async with beside(service, tokens).client() as client:
        assert (await client.get(ME, headers=bearer(forged.token()))).json()["id"] == 1
        answers = {name: await client.get(ME, headers=bearer(attack(forged))) for name, attack in ATTACKS.items()}
        for claim, values in IMPOSSIBLE.items():
            for value in values:
                answers[f"{claim} {value}"] = await client.get(ME, headers=bearer(forged.token({}, {claim: value})))
    assert {name for name, answer in answers.items() if answer.status_code != 401} == TRIMMED
    for name in answers.keys() - TRIMMED:
        assert_refused(answers[name])
    assert len(answers) > 180


async def test_a_scope_in_a_token_of_ours_gives_none(service: Service, accounts: None) -> None:
    forged = forge(with_secret)
    async with beside(service, forged.tokens()).client() as client:
        for scope in ("users:admin", "users:admin content:write audit:read", ["users:admin"]):
            token = forged.token({}, {"scope": scope, "permissions": ["users:admin"], "role": "admin"})
            assert (await client.get("/api/users", headers=bearer(token))).status_code == 403


async def test_a_token_of_a_key_that_was_removed_is_refused(service: Service, accounts: None) -> None:
    forged = forge(with_secret)
    token = forged.tokens(OLDER).issue("1", str(logins_of(Role.USER)[0]), [])
    for secret, status in ((OLDER, 200), ("another-" * 8, 401)):
        async with beside(service, forged.tokens(secret)).client() as client:
            assert (await client.get(ME, headers=bearer(token))).status_code == status
    assert forged.now == NOW


async def test_no_credential_is_taken_for_another(client: AsyncClient, settings: Settings) -> None:
    key = (await client.post("/api/api-keys", json={"name": "Import"})).json()["key"]
    access = token_of(settings, Role.ADMIN)
    secret = key.removeprefix("key_")
    wrong = [
        *(REFRESH_TOKEN, REFRESH_TOKEN.removeprefix("refresh_"), f"key_{REFRESH_TOKEN.removeprefix('refresh_')}"),
        *(secret, f"KEY_{secret}", f"Key_{secret}", f"refresh_{secret}", f"key_key_{secret}", f"key-{secret}"),
        *(key[:-1], key + "A", key.swapcase(), f"key_{secret[::-1]}", key[:10], "key_", f"key_{access}", "key_" + "é"),
        *(f"{key}.{key}.{key}", f"{access} {access}", f"Bearer {access}", f'"{access}"', f"{access},{access}", ""),
    ]
    job = "/api/jobs/00000000-0000-0000-0000-000000000001"  # which a program may read
    assert (await client.get(job, headers=bearer(key))).status_code == 200
    for each in wrong:
        assert_refused(await client.get(job, headers=bearer(each)))
    for token in (access, key, key.replace("key_", "refresh_"), token_of(settings, Role.USER)):
        refused = await client.post("/api/auth/refresh", json={"refresh_token": token[:100]})
        assert_refused(refused)


async def test_a_credential_is_sent_in_one_header_and_nowhere_else(service: Service, settings: Settings) -> None:
    mine, other = (token_of(settings, role) for role in (Role.ADMIN, Role.USER))
    async with service.client() as client:
        for values in ([mine, mine], [mine, other], [other, mine], ["", mine], [mine, "x"]):
            headers = [("Authorization", f"Bearer {value}") for value in values]
            assert_refused(await client.get(ME, headers=headers))
        for name in ("X-Authorization", "X-Access-Token", "Proxy-Authorization", "Token", "X-Api-Key"):
            assert_refused(await client.get(ME, headers={name: f"Bearer {mine}"}))
        for query in ("access_token", "token", "authorization", "api_key", "key"):
            assert_refused(await client.get(f"{ME}?{query}={mine}"))
        cookies = "; ".join(f"{name}={mine}" for name in ("access_token", "token", "Authorization", "session"))
        assert_refused(await client.get(ME, headers={"Cookie": cookies}))
        form = {"access_token": mine}
        assert_refused(await client.request("GET", ME, data=form))
        for scheme in ("bearer", "BEARER"):  # case does not matter (RFC 9110 §11.1)
            assert (await client.get(ME, headers={"Authorization": f"{scheme} {mine}"})).status_code == 200
        for scheme in ("Basic", "Token", "JWT", "Bearer:", "Bearer\t", ""):
            assert_refused(await client.get(ME, headers={"Authorization": f"{scheme} {mine}"}))


ENDS = {
    "the session is revoked": "DELETE FROM logins",
    "the session has expired": "UPDATE logins SET expires_at = now()",
    "the account is closed": "UPDATE users SET is_active = false",
    "the account is deleted": "DELETE FROM users",
    "the session is another user's": "UPDATE logins SET user_id = 2 WHERE user_id <> 2",
}


@pytest.mark.parametrize("change", ENDS.values(), ids=ENDS)
async def test_a_token_is_valid_no_longer_than_what_it_belongs_to(
    anonymous: AsyncClient, settings: Settings, onlooker: asyncpg.Connection, change: str
) -> None:
    await onlooker.execute(change)
    assert_refused(await anonymous.get(ME, headers=headers_of(settings, Role.USER)))
    assert_refused(await anonymous.get(ME, headers=headers_of(settings, Role.USER, logins_of(Role.EDITOR)[0])))


async def test_a_role_that_was_taken_away_is_gone(
    anonymous: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    pair = await anonymous.post("/api/auth/login", json={"email": email_of(Role.ADMIN), "password": PASSWORD})
    await onlooker.execute("UPDATE users SET role = 'user' WHERE id = 3")
    headers = {"Authorization": f"Bearer {pair.json()['access_token']}"}
    assert (await anonymous.get("/api/users", headers=headers)).status_code == 403
    assert (await anonymous.get(ME, headers=headers)).status_code == 200


async def test_a_refresh_token_continues_its_own_family_only(
    anonymous: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    credentials = {"email": email_of(Role.USER), "password": PASSWORD}
    one, other = [(await anonymous.post("/api/auth/login", json=credentials)).json() for _ in range(2)]
    headers = {"Authorization": f"Bearer {one['access_token']}"}
    assert (await anonymous.post("/api/auth/logout", json={}, headers=headers)).status_code == 204
    for token, status in ((one["refresh_token"], 401), (other["refresh_token"], 200)):
        answer = await anonymous.post("/api/auth/refresh", json={"refresh_token": token}, headers=headers)
        assert answer.status_code == status
    # What the other family has now does not revive the first one.
    assert_refused(await anonymous.get(ME, headers=headers))
