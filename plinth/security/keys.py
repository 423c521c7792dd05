"""The keys that tokens are signed and verified with, each bound to its algorithm and its issuer."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import OKPAlgorithm
from pydantic import SecretStr

from plinth.errors import ConfigurationError
from plinth.security.settings import AuthSettings

LEAST_SECRET_BYTES = 32
PEM = "-----BEGIN "


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    """`kid` in the header of a token."""
    algorithm: str
    issuer: str
    verifying: Any = field(repr=False)
    signing: Any = field(default=None, repr=False)
    """None for a key that only verifies."""
    jwk: Mapping[str, Any] | None = None
    """The public key (RFC 7517); None for a secret."""


def own_keys(settings: AuthSettings, secret_key: SecretStr, issuer: str) -> list[Key]:
    """The present key, and the previous one if there is any. Raises ConfigurationError."""
    if settings.algorithm == "HS256":
        keys = [_secret("APP_SECRET_KEY", secret_key, issuer)]
    elif settings.private_key is None:
        raise ConfigurationError("AUTH_PRIVATE_KEY: is missing; EdDSA needs the PEM of an Ed25519 key")
    else:
        keys = [_pair("AUTH_PRIVATE_KEY", settings.private_key, issuer)]
        if keys[0].signing is None:
            raise ConfigurationError("AUTH_PRIVATE_KEY: is a public key; EdDSA signs with the private one")
    if (previous := settings.previous_key) is not None:
        # Of either kind, so that the algorithm can be changed like a key.
        read = _pair if PEM in previous.get_secret_value() else _secret
        keys.append(read("AUTH_PREVIOUS_KEY", previous, issuer))
    return keys


def _secret(name: str, key: SecretStr, issuer: str) -> Key:
    value = key.get_secret_value().encode()
    if PEM.encode() in value:
        raise ConfigurationError(f"{name}: is a key in PEM; HS256 needs a secret, such as of `openssl rand -hex 32`")
    if len(value) < LEAST_SECRET_BYTES:
        raise ConfigurationError(f"{name}: is under {LEAST_SECRET_BYTES} bytes; use `openssl rand -hex 32`")
    # A hash of what is derived from the key, so that nothing of the key itself is in the header of a token.
    id = hashlib.blake2b(b"kid", key=hashlib.sha256(value).digest(), digest_size=6).hexdigest()
    return Key(id, "HS256", issuer, value, value)


def _pair(name: str, pem: SecretStr, issuer: str) -> Key:
    text = pem.get_secret_value().replace("\\n", "\n").encode()  # as it is written on one line in `.env`
    private: Any = None
    try:
        if b"PRIVATE" in text:
            private = load_pem_private_key(text, None)
            public = private.public_key()
        else:
            public = load_pem_public_key(text)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        raise ConfigurationError(f"{name}: is not a key in PEM without a passphrase") from None
    if not isinstance(public, Ed25519PublicKey) or not isinstance(private, Ed25519PrivateKey | None):
        raise ConfigurationError(f"{name}: is not an Ed25519 key; use `openssl genpkey -algorithm ed25519`")
    id = hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:12]
    jwk = {**OKPAlgorithm.to_jwk(public, as_dict=True), "kid": id, "alg": "EdDSA", "use": "sig"}
    return Key(id, "EdDSA", issuer, public, private, jwk)
