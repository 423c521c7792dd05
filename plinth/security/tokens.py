"""Access tokens: JWTs after RFC 9068, and of the many ways to verify one (RFC 8725) the narrow one.

The key decides the algorithm and the issuer: a token names its key by `kid`, and is accepted only if it was signed with
that key, by the algorithm that the key is for. Of our own tokens, every field of the header is known.
"""

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from time import time
from typing import Any, Protocol
from uuid import uuid4

import jwt
from cachetools import TLRUCache
from pydantic import SecretStr

from plinth.errors import ConfigurationError, InvalidTokenError
from plinth.security.keys import Key, own_keys
from plinth.security.settings import AuthSettings

MAX_TOKEN_CHARACTERS, MAX_SUBJECT_CHARACTERS, MAX_BRACKETS = 8192, 255, 500
LEEWAY_SECONDS = 5
TYPE = "at+jwt"
OTHER_TYPES = {None, "JWT", "AT+JWT", "APPLICATION/AT+JWT"}
"""Of another issuer's tokens, in capitals. Not those of an ID token, a logout token or a proof of possession."""
COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # and no `=`, which PyJWT would accept
REQUIRED = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid"]
REQUIRED_OF_OTHERS = ["iss", "aud", "sub", "exp"]
MAX_REMEMBERED, REMEMBERED_SECONDS = 1000, 60.0
FAULTS = jwt.PyJWTError, ValueError, TypeError, RecursionError


@dataclass(frozen=True, slots=True)
class Claims:
    issuer: str
    subject: str
    session: str
    """The session that the token belongs to, which can be revoked; empty for a token of another issuer."""
    scopes: frozenset[str]
    expires_at: int
    """Unix time in seconds."""


class RemoteKeys(Protocol):
    """Keys of another issuer."""

    async def get(self, id: str) -> Key | None: ...


class Tokens:
    def __init__(
        self,
        settings: AuthSettings,
        secret_key: SecretStr,
        name: str,
        remote: RemoteKeys | None = None,
        *,
        clock: Callable[[], float] = time,
    ) -> None:
        """`name` is the service's, for tokens and for those that are meant for it. Raises ConfigurationError."""
        self.issuer = settings.issuer or name
        if self.issuer == settings.trusted_issuer:
            raise ConfigurationError("AUTH_TRUSTED_ISSUER: is this service's own issuer; set AUTH_ISSUER to another")
        self._audience = settings.audience or name
        self._keys = own_keys(settings, secret_key, self.issuer)
        self._by_id = {key.id: key for key in reversed(self._keys)}
        self._remote = remote
        self._clock = clock
        # Verified tokens, since a client sends the same one many times. For a minute at most: a key that the trusted
        # issuer has withdrawn is not trusted for as long as its last token is valid.
        self._remembered: TLRUCache[bytes, Claims] = TLRUCache(
            MAX_REMEMBERED, lambda _, claims, now: min(claims.expires_at, now + REMEMBERED_SECONDS), timer=clock
        )
        self.access_seconds = settings.access_seconds

    def issue(self, subject: str, session: str, scopes: Collection[str]) -> str:
        """An access token of our own, valid from now on for `access_seconds`."""
        key, now = self._keys[0], int(self._clock())
        claims = {
            "iss": self.issuer,
            "aud": self._audience,
            "sub": subject,
            "exp": now + self.access_seconds,
            "nbf": now,
            "iat": now,
            "jti": uuid4().hex,
            "sid": session,
            "scope": " ".join(sorted(scopes)),
        }
        return jwt.encode(claims, key.signing, key.algorithm, headers={"kid": key.id, "typ": TYPE})

    async def verify(self, token: str) -> Claims:
        """Raises InvalidTokenError, which does not say why: that would help only those who forge tokens.

        Raises UnavailableError where the keys of the trusted issuer are needed and were never fetched.
        """
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise InvalidTokenError
        digest = blake2b(token.encode()).digest()  # since tokens are not to be kept; SHA-256 costs a call of OpenSSL
        if (claims := self._remembered.get(digest)) is not None:
            return claims
        if not COMPACT.fullmatch(token):
            raise InvalidTokenError
        head, body, _ = token.split(".")
        try:
            header = _object(head)
            key = await self._key(header)
            claims = self._claims(key, header, _object(body), token)
        except FAULTS:
            raise InvalidTokenError from None
        self._remembered[digest] = claims
        return claims

    def jwks(self) -> dict[str, list[Mapping[str, Any]]]:
        """The public keys (RFC 7517 §5), which other services verify the tokens with."""
        return {"keys": [key.jwk for key in self._keys if key.jwk is not None]}

    async def _key(self, header: Mapping[str, Any]) -> Key:
        id = header.get("kid")
        if not isinstance(id, str):
            raise InvalidTokenError
        if (key := self._by_id.get(id)) is not None:
            if header != {"alg": key.algorithm, "kid": id, "typ": TYPE}:
                raise InvalidTokenError
        elif self._remote is not None and _may_be_of_another(header):
            key = await self._remote.get(id)
        if key is None:
            raise InvalidTokenError
        return key

    def _claims(self, key: Key, header: Mapping[str, Any], claims: Mapping[str, Any], token: str) -> Claims:
        """`claims` are those of the token, which are not to be used before it is verified."""
        is_own = key.id in self._by_id
        jwt.decode(
            token,
            key.verifying,
            algorithms=[key.algorithm],
            issuer=key.issuer,
            audience=self._audience,
            options={
                "require": REQUIRED if is_own else REQUIRED_OF_OTHERS,
                "strict_aud": is_own,  # others may name several audiences
                # PyJWT takes "1" and true for numbers, and the time from the system.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        subject, session = claims["sub"], claims["sid"] if is_own else ""
        is_text = 0 < len(subject) <= MAX_SUBJECT_CHARACTERS and subject.isprintable()
        is_session = isinstance(session, str) and bool(session) == is_own
        if not is_text or not is_session or not self._is_valid_now(claims, {int} if is_own else {int, float}):
            raise InvalidTokenError
        return Claims(key.issuer, subject, session, _scopes(claims), math.floor(claims["exp"]))

    def _is_valid_now(self, claims: Mapping[str, Any], numbers: Collection[type]) -> bool:
        now = self._clock()
        times = [claims[name] for name in ("exp", "nbf", "iat") if name in claims]
        if not all(type(time) in numbers and math.isfinite(time) for time in times):
            return False
        expires, *begins = times
        return expires > now - LEEWAY_SECONDS and all(time <= now + LEEWAY_SECONDS for time in begins)


def _object(segment: str) -> dict[str, Any]:
    """The members of a JSON object. PyJWT takes the last of two with the same name; other readers take the first."""
    text = urlsafe_b64decode(segment + "==")
    # Since Python 3.12 the parser takes many more levels than before.
    value = json.loads(text, object_pairs_hook=_unique) if text.count(b"[") + text.count(b"{") <= MAX_BRACKETS else None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a member twice")
    return found


def _may_be_of_another(header: Mapping[str, Any]) -> bool:
    """What is critical to its issuer is not known here (RFC 7515 §4.1.11)."""
    type = header.get("typ")
    return "crit" not in header and (type.upper() if isinstance(type, str) else type) in OTHER_TYPES


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Of `scope` (RFC 9068 §2.2.3), or a list as some providers write it, in `scp` or `permissions`."""
    found: set[str] = set()
    for name in ("scope", "scp", "permissions"):
        value = claims.get(name, "")
        texts = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else []
        found |= {text for text in texts if isinstance(text, str) and text}
    return frozenset(found)
