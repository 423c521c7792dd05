"""Tokens as an attacker would write them: any header and claims, signed with any key."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import SecretStr

from plinth.security import AuthSettings, Tokens
from plinth.security.tokens import RemoteKeys

NOW = 1_800_000_000
NAME = "Plinth"
SECRET, PREVIOUS, OLDER = "present-" * 8, "previous-" * 8, "older-" * 8
Signer = Callable[[bytes], bytes]
OMITTED: Any = object()
"""The value of a member that is to be left out."""


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def dumped(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def compact(header: Any, claims: Any, sign: Signer) -> str:
    """A JWS; `header` and `claims` are values, or the bytes of their JSON."""
    signed = f"{b64(dumped(header))}.{b64(dumped(claims))}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def hs(secret: str | bytes, hash: str = "sha256") -> Signer:
    key = secret.encode() if isinstance(secret, str) else secret
    return lambda data: hmac.new(key, data, getattr(hashlib, hash)).digest()


def pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class Service:
    """Issues and verifies tokens at a time that stands still."""

    def __init__(self, settings: Mapping[str, Any], sign: Signer, *, remote: RemoteKeys | None = None) -> None:
        self.settings = AuthSettings(**settings)
        self.sign = sign
        self.remote = remote
        self.now = float(NOW)
        issued = self.tokens().issue("7", "s1", {"products:write"})
        head, body, _ = issued.split(".")
        self.header, self.claims = read(head), read(body)

    def tokens(self, secret: str = SECRET) -> Tokens:
        """Without the memory of an earlier one."""
        return Tokens(self.settings, SecretStr(secret), NAME, self.remote, clock=lambda: self.now)

    def token(self, header: Any = None, claims: Any = None, sign: Signer | None = None) -> str:
        """A valid one but for what is given: members of header and claims, or the bytes of their JSON."""
        return compact(changed(self.header, header), changed(self.claims, claims), sign or self.sign)


def read(segment: str) -> dict[str, Any]:
    return dict(json.loads(urlsafe_b64decode(segment + "==")))


def changed(members: dict[str, Any], change: Any) -> Any:
    if change is not None and not isinstance(change, Mapping):
        return change
    return {name: value for name, value in {**members, **(change or {})}.items() if value is not OMITTED}


def with_secret() -> Service:
    return Service({"previous_key": PREVIOUS}, hs(SECRET))


PRIVATE, PREVIOUS_PRIVATE, OLDER_PRIVATE = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))


def with_pair() -> Service:
    settings = {"algorithm": "EdDSA", "private_key": pem(PRIVATE), "previous_key": pem(PREVIOUS_PRIVATE)}
    return Service(settings, PRIVATE.sign)
