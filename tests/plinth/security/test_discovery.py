"""Tokens of another issuer, an OpenID provider on a real socket."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr, ValidationError

from plinth.errors import ConfigurationError, InvalidTokenError, UnavailableError
from plinth.resilience import OutgoingSettings, deadline, open_outgoing
from plinth.security import AuthSettings, Claims, DiscoveredKeys, Tokens
from plinth.security.discovery import KEEP_SECONDS, MAX_BYTES, MAX_KEYS, REFRESH_SECONDS
from plinth.security.tokens import REMEMBERED_SECONDS
from tests.plinth.security.forging import NAME, NOW, SECRET, compact, hs, read
from tests.plinth.security.provider import DISCOVERY, ED, JWKS, KEYS, SHARED, Provider, jwk, oct_jwk, provider

PATIENT = OutgoingSettings(retries=0, breaker_failures=1000, timeout_seconds=60, connect_timeout_seconds=60)


class Trusting:
    """A service that trusts a provider, and whose clock stands still."""

    def __init__(self, provider: Provider, http: httpx.AsyncClient) -> None:
        self.now = float(NOW)
        self.provider, self.http = provider, http
        self.keys = DiscoveredKeys(provider.issuer, http, clock=lambda: self.now)
        self.tokens = self.fresh()

    def fresh(self, **settings: Any) -> Tokens:
        trusting = AuthSettings(trusted_issuer=self.provider.issuer, **settings)
        return Tokens(trusting, SecretStr(SECRET), NAME, self.keys, clock=lambda: self.now)

    def token(self, algorithm: str = "RS256", key: Any = None, header: Any = None, **claims: Any) -> str:
        return self.provider.token(algorithm, self.now, key, header, **claims)

    async def refuses(self, token: str) -> None:
        with pytest.raises(InvalidTokenError):
            await self.tokens.verify(token)


@pytest.fixture
async def idp() -> AsyncIterator[Provider]:
    async with provider() as served:
        yield served


@pytest.fixture
async def service(idp: Provider) -> AsyncIterator[Trusting]:
    async with open_outgoing(PATIENT) as http:
        yield Trusting(idp, http)


@pytest.mark.parametrize("algorithm", KEYS)
async def test_tokens_of_the_trusted_issuer_are_accepted(service: Trusting, algorithm: str) -> None:
    claims = await service.tokens.verify(service.token(algorithm, scope="a b"))
    assert claims == Claims(service.provider.issuer, "ada", "", frozenset({"a", "b"}), NOW + 300)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": " a   b "}, {"a", "b"}),
        ({"scope": ["a", "b"]}, {"a", "b"}),
        ({"scp": "a"}, {"a"}),
        ({"scp": ["a"], "permissions": ["b"]}, {"a", "b"}),
        ({"scope": ["a", 1, None, "", {"b": 1}]}, {"a"}),
        ({"scope": 7}, set()),
        ({"scope": {"a": True}}, set()),
        ({"scope": True, "permissions": {"b": 1}}, set()),
        ({"scope": ""}, set()),
    ],
)
async def test_scopes_are_read_as_providers_write_them(
    service: Trusting, claims: dict[str, Any], scopes: set[str]
) -> None:
    assert (await service.tokens.verify(service.token(**claims))).scopes == scopes


OTHER_RSA = rsa.generate_private_key(65537, 2048)
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
REFUSED: dict[str, dict[str, Any]] = {
    "another_key": {"key": OTHER_RSA},
    "another_key_of_another_kind": {"algorithm": "ES256", "key": OTHER_EC},
    "the_kid_of_another_key": {"algorithm": "ES256", "header": {"kid": "RS256"}},
    "another_algorithm_of_the_key": {"algorithm": "PS512", "header": {"kid": "RS256"}},
    "unknown_kid": {"header": {"kid": "unknown"}},
    "empty_kid": {"header": {"kid": ""}},
    "our_issuer": {"iss": NAME},
    "another_issuer": {"iss": "https://attacker.example"},
    "issuer_with_a_slash": {"iss": "http://localhost/"},
    "no_issuer": {"iss": None},
    "another_audience": {"aud": "client-7"},
    "no_audience": {"aud": None},
    "audience_of_others": {"aud": ["client-7", "client-8"]},
    "audience_that_is_no_text": {"aud": [NAME, 7]},
    "no_subject": {"sub": None},
    "empty_subject": {"sub": ""},
    "no_expiry": {"exp": None},
    "expired": {"exp": NOW - 60},
    "not_yet": {"nbf": NOW + 60},
    "from_the_future": {"iat": NOW + 60},
    "expiry_as_text": {"exp": str(NOW + 60)},
    "infinite": {"exp": float("inf")},
    "id_token_type": {"header": {"typ": "id_token+jwt"}},
    "logout_token": {"header": {"typ": "logout+jwt"}},
    "proof_of_possession": {"header": {"typ": "dpop+jwt"}},
    "type_that_is_no_text": {"header": {"typ": ["JWT"]}},
    "line_break_in_the_subject": {"sub": "ada\nadmin"},
}


@pytest.mark.parametrize("forged", REFUSED.values(), ids=REFUSED)
async def test_other_tokens_are_refused(service: Trusting, forged: dict[str, Any]) -> None:
    await service.tokens.verify(service.token())  # which is otherwise accepted
    await service.refuses(service.token(**forged))


@pytest.mark.parametrize(
    "token",
    [
        {"header": {"typ": None}},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": "application/at+jwt"}},
        {"header": {"x5t": "abc", "jku": "https://provider.example/jwks"}},
        {"aud": ["userinfo", NAME]},
        {"exp": NOW + 60.5},
        {"nbf": NOW, "iat": NOW, "jti": "1", "sid": "theirs", "azp": "client"},
    ],
)
async def test_what_providers_write_is_accepted(service: Trusting, token: dict[str, Any]) -> None:
    claims = await service.tokens.verify(service.token(**token))
    assert (claims.subject, claims.session) == ("ada", ""), "their sessions are none of ours"


async def test_what_is_critical_to_the_issuer_is_refused(service: Trusting) -> None:
    claims = {"iss": service.provider.issuer, "aud": NAME, "sub": "ada", "exp": NOW + 300}
    header: dict[str, Any] = {"alg": "EdDSA", "kid": "EdDSA", "b64": True}
    assert (await service.tokens.verify(compact(header, claims, ED.sign))).subject == "ada"
    await service.refuses(compact(header | {"crit": ["b64"]}, claims, ED.sign))


async def test_neither_issuer_can_speak_for_the_other(service: Trusting) -> None:
    """A key belongs to one issuer, whatever its tokens say of themselves, and whatever ids a provider chooses."""
    own = service.tokens.issue("7", "s1", [])
    own_header, own_claims = map(read, own.split(".")[:2])
    assert (await service.tokens.verify(own)).issuer == NAME
    await service.refuses(compact(own_header, own_claims | {"iss": service.provider.issuer}, hs(SECRET)))
    # The provider publishes a key with the id of ours: ours is the one that is used.
    service.provider.keys = [jwk("RS256", kid=own_header["kid"])]
    everything: dict[str, Any] = {"nbf": NOW, "iat": NOW, "jti": "1", "sid": "s1", "iss": NAME}
    for issuer in (NAME, service.provider.issuer):
        stolen = {"kid": own_header["kid"], "typ": "at+jwt"}
        await service.refuses(service.token(header=stolen, **everything | {"iss": issuer}))
    assert (await service.tokens.verify(own)).subject == "7"


def test_a_service_cannot_trust_itself() -> None:
    settings = AuthSettings(issuer="https://id.example", trusted_issuer="https://id.example")
    with pytest.raises(ConfigurationError, match="AUTH_TRUSTED_ISSUER: is this service's own issuer"):
        Tokens(settings, SecretStr(SECRET), NAME)


PRIVATE_JWK = {**jwk("EdDSA"), "kid": "private", "d": "AQ"}
UNUSABLE: dict[str, Any] = {
    "secret": oct_jwk(),
    "secret_with_another_name": oct_jwk(alg="RS256", kid="HS256"),
    "for_encryption": jwk("RS256", use="enc"),
    "for_signing_only": jwk("RS256", key_ops=["sign"]),
    "operations_that_are_none": jwk("RS256", key_ops=5),
    "for_encryption_by_its_algorithm": jwk("RS256", alg="RSA-OAEP"),
    "of_another_kind": jwk("RS256", alg="ES256"),
    "short": jwk("RS256", rsa.generate_private_key(65537, 1024)),
    "without_id": jwk("RS256", kid=None),
    "with_a_number_as_id": jwk("RS256", kid=7),
    "private": PRIVATE_JWK,
    "broken": jwk("RS256", n="!"),
    "curve_that_is_none": {"kty": "OKP", "crv": "Ed999", "x": "AQ", "kid": "x"},
    "curve_of_bitcoin": jwk("ES256", ec.generate_private_key(ec.SECP256K1()), alg="ES256K", kid="k1"),
    "kind_that_is_none": {"kty": "none", "kid": "none"},
    "text": "key",
    "number": 7,
    "null": None,
    "list": [],
    "empty": {},
}


@pytest.mark.parametrize("key", UNUSABLE.values(), ids=UNUSABLE)
async def test_unusable_keys_are_left_out(service: Trusting, key: Any) -> None:
    service.provider.keys = [key, jwk("ES256")]
    await service.tokens.verify(service.token("ES256"))
    await service.refuses(service.token("HS256", SHARED))
    id = key.get("kid") if isinstance(key, dict) else None
    assert await service.keys.get(str(id)) is None
    assert await service.keys.get("ES256") is not None


async def test_only_so_many_keys_are_kept(service: Trusting) -> None:
    service.provider.keys = [jwk("EdDSA", kid=str(number)) for number in range(MAX_KEYS + 1)]
    assert await service.keys.get(str(MAX_KEYS - 1)) is not None
    assert await service.keys.get(str(MAX_KEYS)) is None


async def test_made_up_ids_cost_the_provider_nothing(service: Trusting) -> None:
    await service.tokens.verify(service.token())
    for number in range(20):
        await service.refuses(service.token(header={"kid": f"made-up-{number}"}))
    assert service.provider.requests == {DISCOVERY: 1, JWKS: 1}
    service.now += REFRESH_SECONDS + 1
    for number in range(20):
        await service.refuses(service.token(header={"kid": f"made-up-{number}"}))
    assert service.provider.requests == {DISCOVERY: 2, JWKS: 2}


async def test_keys_that_the_provider_adds_are_found(service: Trusting) -> None:
    await service.tokens.verify(service.token())
    new = Ed25519PrivateKey.generate()
    service.provider.keys.append(jwk("EdDSA", new, kid="new"))
    await service.refuses(service.token("EdDSA", new, {"kid": "new"}))  # fetched a moment ago
    service.now += REFRESH_SECONDS + 1
    await service.tokens.verify(service.token("EdDSA", new, {"kid": "new"}))


async def test_keys_that_the_provider_withdraws_are_forgotten(service: Trusting) -> None:
    token = service.token(exp=NOW + 100_000)
    await service.tokens.verify(token)
    service.provider.keys = [jwk("ES256")]
    service.now += KEEP_SECONDS + 1
    await service.refuses(token)
    await service.tokens.verify(service.token("ES256"))


async def test_a_remembered_token_does_not_outlive_its_key_for_long(service: Trusting) -> None:
    token = service.token(exp=NOW + 100_000)
    service.now += KEEP_SECONDS - 1
    await service.tokens.verify(token)
    service.now += REMEMBERED_SECONDS - 1
    service.provider.keys = []
    await service.refuses(service.token("EdDSA", header={"kid": "unknown"}))  # has them fetched again
    await service.tokens.verify(token)
    service.now += 1
    await service.refuses(token)


async def test_simultaneous_first_requests_fetch_once(service: Trusting) -> None:
    service.provider.open.clear()
    waiting = [asyncio.create_task(service.tokens.verify(service.token())) for _ in range(20)]
    await service.provider.arrived.wait()
    service.provider.open.set()
    assert {claims.subject for claims in await asyncio.gather(*waiting)} == {"ada"}
    assert service.provider.requests == {DISCOVERY: 1, JWKS: 1}


async def test_a_cancelled_first_request_leaves_its_fetch_to_the_others(service: Trusting) -> None:
    service.provider.open.clear()
    first = asyncio.create_task(service.tokens.verify(service.token()))
    await service.provider.arrived.wait()
    second = asyncio.create_task(service.tokens.verify(service.token("ES256")))
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    service.provider.open.set()
    await second
    assert service.provider.requests == {DISCOVERY: 1, JWKS: 1}


async def test_the_deadline_of_one_request_is_not_that_of_the_fetch(service: Trusting) -> None:
    service.provider.open.clear()

    async def hurried() -> None:
        async with deadline(30.0):
            await service.tokens.verify(service.token())

    first = asyncio.create_task(hurried())
    await service.provider.arrived.wait()
    first.cancel()
    service.provider.open.set()
    await service.tokens.verify(service.token("ES256"))


GARBAGE: dict[str, tuple[str, tuple[int, dict[str, str], bytes]]] = {
    "outage": (DISCOVERY, (503, {}, b"")),
    "outage_of_the_keys": (JWKS, (500, {}, b"")),
    "not_found": (DISCOVERY, (404, {}, b"")),
    "redirect": (DISCOVERY, (302, {"Location": "/elsewhere"}, b"")),
    "redirect_of_the_keys": (JWKS, (307, {"Location": "http://localhost:1/jwks"}, b"")),
    "no_json": (DISCOVERY, (200, {}, b"<html>")),
    "not_utf8": (JWKS, (200, {}, b"\xff\xfe{")),
    "list": (DISCOVERY, (200, {}, b"[]")),
    "number": (JWKS, (200, {}, b"7")),
    "keys_as_a_number": (JWKS, (200, {}, b'{"keys": 7}')),
    "keys_as_an_object": (JWKS, (200, {}, b'{"keys": {}}')),
    "no_keys": (JWKS, (200, {}, b"{}")),
    "too_large": (JWKS, (200, {}, b'{"keys": []}' + b" " * MAX_BYTES)),
    "too_large_unpacked": (JWKS, (200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 50 * MAX_BYTES))),
    "broken_gzip": (JWKS, (200, {"Content-Encoding": "gzip"}, b"no")),
    "deep": (JWKS, (200, {}, b"[" * 100_000)),
    "half": (JWKS, (200, {"Content-Length": "100"}, b'{"keys"')),
    "nothing": (DISCOVERY, (200, {}, b"")),
}


@pytest.mark.parametrize(("path", "answer"), GARBAGE.values(), ids=GARBAGE)
async def test_an_outage_is_an_outage_for_unknown_keys_only(
    service: Trusting, path: str, answer: tuple[int, dict[str, str], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    service.provider.answers[path] = answer
    with pytest.raises(UnavailableError):
        await service.tokens.verify(service.token())
    own = service.tokens.issue("7", "s1", [])
    assert (await service.tokens.verify(own)).subject == "7", "our own need no provider"
    assert [record.levelno for record in caplog.records if "cannot be fetched" in record.message] == [logging.WARNING]

    service.provider.answers.clear()
    service.now += REFRESH_SECONDS + 1
    token = service.token(exp=NOW + 100_000)
    await service.tokens.verify(token)

    service.provider.answers[path] = answer
    service.now += KEEP_SECONDS + 1
    assert (await service.tokens.verify(token)).subject == "ada", "a known key stays valid"
    await service.refuses(service.token(header={"kid": "unknown"}))


async def test_a_provider_without_a_usable_key_is_no_outage(service: Trusting) -> None:
    service.provider.keys = [oct_jwk()]
    await service.refuses(service.token())


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "http://localhost:1"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": 7},
        {"jwks_uri": "/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://localhost:1/jwks"},
        {"jwks_uri": "ftp://localhost/jwks"},
        {"jwks_uri": "http://[broken"},
        {"jwks_uri": "http://"},
    ],
)
async def test_a_document_that_points_elsewhere_is_refused(service: Trusting, document: dict[str, Any]) -> None:
    service.provider.document.update(document)
    with pytest.raises(UnavailableError):
        await service.tokens.verify(service.token())
    assert service.provider.requests == {DISCOVERY: 1}


async def test_keys_on_another_host_are_found(service: Trusting) -> None:
    async with provider() as other:
        service.provider.document["jwks_uri"] = f"{other.issuer}{JWKS}"
        await service.tokens.verify(service.token())
        assert (service.provider.requests, other.requests) == ({DISCOVERY: 1}, {JWKS: 1})


async def test_an_unreachable_provider_is_tried_rarely(idp: Provider) -> None:
    async with open_outgoing(PATIENT) as http:
        service = Trusting(idp, http)
        idp.answers[DISCOVERY] = (503, {}, b"")
        for _ in range(20):
            with pytest.raises(UnavailableError):
                await service.tokens.verify(service.token())
        assert idp.requests == {DISCOVERY: 1}


@pytest.mark.parametrize(
    "url",
    [
        *("http://id.example", "ftp://id.example", "id.example", "https://", "https:id.example", "https://id example"),
        *(
            "http://localhost.attacker.example",
            "http://127.0.0.1.attacker.example",
            "http://localhost@attacker.example",
        ),
        *("https://user:secret@id.example", "https://id.example/?a=b", "https://id.example/#a", "HTTPS://id.example"),
    ],
)
def test_other_urls_are_no_issuers(url: str) -> None:
    with pytest.raises(ValidationError, match="must be an https URL") as refused:
        AuthSettings(trusted_issuer=url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://id.example", "https://id.example:8443/realms/a/", "http://localhost:8080/a"])
def test_urls_of_issuers(url: str) -> None:
    settings = AuthSettings(trusted_issuer=url)
    assert settings.trusted_issuer == url
    assert bool([*settings.production_faults()]) is url.startswith("http://")
