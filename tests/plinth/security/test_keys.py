"""Keys and settings that cannot be used, and where secrets never appear."""

import base64
import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from pydantic import SecretStr, ValidationError

from app.settings import Settings
from plinth.errors import ConfigurationError
from plinth.security import AuthSettings, Tokens, has_form, hash_secret, new_secret
from plinth.security.keys import own_keys
from plinth.settings import load_settings
from tests.plinth.security.forging import NAME, PRIVATE, SECRET, pem, public_pem, with_pair, with_secret


def private_pem(key: Any, **options: Any) -> str:
    encryption = options.get("encryption", NoEncryption())
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode())


RSA = private_pem(rsa.generate_private_key(65537, 2048))
EC = private_pem(ec.generate_private_key(ec.SECP256R1()))
X25519 = private_pem(x25519.X25519PrivateKey.generate())
LOCKED = private_pem(ed25519.Ed25519PrivateKey.generate(), encryption=BestAvailableEncryption(b"passphrase"))
CUT = pem(PRIVATE)[:60]
GOOD = {"algorithm": "EdDSA", "private_key": pem(PRIVATE)}
EDDSA = {"algorithm": "EdDSA"}

FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "short_secret": ({}, "s" * 31, "APP_SECRET_KEY: is under 32 bytes"),
    "pem_as_secret": ({}, pem(PRIVATE), "APP_SECRET_KEY: is a key in PEM; HS256 needs a secret"),
    "short_previous_secret": ({"previous_key": "previous"}, SECRET, "AUTH_PREVIOUS_KEY: is under 32 bytes"),
    "no_private_key": (EDDSA, SECRET, "AUTH_PRIVATE_KEY: is missing"),
    "public_for_private": (
        EDDSA | {"private_key": public_pem(PRIVATE.public_key())},
        SECRET,
        "AUTH_PRIVATE_KEY: is a public key",
    ),
    "rsa": (EDDSA | {"private_key": RSA}, SECRET, "AUTH_PRIVATE_KEY: is not an Ed25519 key"),
    "ec": (EDDSA | {"private_key": EC}, SECRET, "AUTH_PRIVATE_KEY: is not an Ed25519 key"),
    "x25519": (EDDSA | {"private_key": X25519}, SECRET, "AUTH_PRIVATE_KEY: is not an Ed25519 key"),
    "locked": (EDDSA | {"private_key": LOCKED}, SECRET, "AUTH_PRIVATE_KEY: is not a key in PEM without a passphrase"),
    "cut": (EDDSA | {"private_key": CUT}, SECRET, "AUTH_PRIVATE_KEY: is not a key in PEM"),
    "text": (EDDSA | {"private_key": "text"}, SECRET, "AUTH_PRIVATE_KEY: is not a key in PEM"),
    "path": (EDDSA | {"private_key": "/run/secrets/key.pem"}, SECRET, "AUTH_PRIVATE_KEY: is not a key in PEM"),
    "previous_rsa": (GOOD | {"previous_key": RSA}, SECRET, "AUTH_PREVIOUS_KEY: is not an Ed25519 key"),
    "previous_cut": (GOOD | {"previous_key": CUT}, SECRET, "AUTH_PREVIOUS_KEY: is not a key in PEM"),
}


@pytest.mark.parametrize(("settings", "secret", "sentence"), FAULTS.values(), ids=FAULTS)
def test_faults_are_one_sentence_that_names_the_variable(settings: dict[str, Any], secret: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        own_keys(AuthSettings(**settings), SecretStr(secret), NAME)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None
    for value in (secret, *settings.values()):
        assert len(value) < 10 or value not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("text", [pem(PRIVATE), pem(PRIVATE).replace("\n", "\\n"), f"\n{pem(PRIVATE)}\n"])
def test_a_pem_may_be_written_on_one_line(text: str) -> None:
    (key,) = own_keys(AuthSettings(algorithm="EdDSA", private_key=text), SecretStr(SECRET), NAME)
    assert key.id == own_keys(with_pair().settings, SecretStr(SECRET), NAME)[0].id


def test_the_previous_key_may_be_public() -> None:
    settings = AuthSettings(**GOOD, previous_key=public_pem(ed25519.Ed25519PrivateKey.generate().public_key()))
    _, previous = own_keys(settings, SecretStr(SECRET), NAME)
    assert previous.signing is None


def test_the_ids_of_keys_differ_and_stay() -> None:
    ids = [
        key.id
        for service in (with_secret(), with_pair())
        for key in own_keys(service.settings, SecretStr(SECRET), NAME)
    ]
    assert len({*ids}) == 4
    assert ids == [
        key.id for service in (with_secret(), with_pair()) for key in own_keys(service.settings, SecretStr(SECRET), "B")
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"algorithm": "none"},
        {"algorithm": "HS512"},
        {"access_seconds": 0},
        {"refresh_seconds": 1},
        {"access_seconds": "nan"},
    ],
)
def test_other_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AuthSettings(**values)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_ALGORITHM", "EdDSA")
    monkeypatch.setenv("AUTH_PRIVATE_KEY", pem(PRIVATE).replace("\n", "\\n"))
    monkeypatch.setenv("APP_SECRET_KEY", SECRET)
    settings = load_settings(Settings)
    tokens = Tokens(settings.auth, settings.app.signing_key, settings.app.name)
    assert tokens.jwks()["keys"]
    shown = f"{settings!r}{settings}{settings.model_dump_json()}"
    assert SECRET not in shown
    assert "PRIVATE KEY" not in shown


def test_production_needs_tls_to_the_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "APP_ENV": "production",
        "AUTH_TRUSTED_ISSUER": "http://localhost:9",
        "HTTP_ALLOWED_HOSTS": "*",
        "DATABASE_URL": "postgresql://localhost/app?sslmode=verify-full",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="AUTH_TRUSTED_ISSUER: must begin with https:// in production"):
        load_settings(Settings)


def test_opaque_secrets() -> None:
    secret, hash = new_secret("key_")
    assert hash_secret(secret) == hash
    assert has_form(secret, "key_")
    assert new_secret("key_")[0] != secret
    for other in (
        "",
        "key_",
        secret[:-1],
        secret + "a",
        "other_" + secret[4:],
        secret[:-1] + "é",
        secret + "\n",
        secret[4:],
    ):
        assert not has_form(other, "key_"), other
    assert len(base64.urlsafe_b64decode(secret[4:] + "=")) == 32
    assert hash_secret("\ud800") != hash_secret("\ud801")
