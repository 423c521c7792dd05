"""Access tokens: JWTs after RFC 9068, and of the many ways to verify one (RFC 8725) the narrow one.

The key decides the algorithm and the issuer: a token names its key by `kid`, and is accepted only if it was signed with
that key, by the algorithm that the key is for. Nothing else in its header is used.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from time import time
from typing import Any, Protocol
from uuid import uuid4

import jwt
from pydantic import SecretStr

from plinth.errors import InvalidTokenError
from plinth.security.keys import Key, own_keys
from plinth.security.settings import AuthSettings

MAX_TOKEN_CHARACTERS = 8192
LEEWAY_SECONDS = 5
TYPE = "at+jwt"
REQUIRED = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"]


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
        self, settings: AuthSettings, secret_key: SecretStr, name: str, remote: RemoteKeys | None = None
    ) -> None:
        """`name` is the service's, for tokens and for those that are meant for it. Raises ConfigurationError."""
        self.issuer = settings.issuer or name
        self._audience = settings.audience or name
        self._keys = own_keys(settings, secret_key, self.issuer)
        self._by_id = {key.id: key for key in self._keys}
        self._remote = remote
        self.access_seconds = settings.access_seconds

    def issue(self, subject: str, session: str, scopes: Collection[str]) -> str:
        """An access token of our own, valid from now on for `access_seconds`."""
        key, now = self._keys[0], int(time())
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
        """Raises InvalidTokenError, which does not say why: that would help only those who forge tokens."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise InvalidTokenError
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(header)
            is_own = key.id in self._by_id
            required = [*REQUIRED, "sid"] if is_own else ["iss", "aud", "sub", "exp"]
            claims = jwt.decode(
                token,
                key.verifying,
                algorithms=[key.algorithm],
                issuer=key.issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": required},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise InvalidTokenError from None
        subject, session = claims["sub"], claims.get("sid") if is_own else ""
        if (is_own and header.get("typ") != TYPE) or not subject or not isinstance(session, str):
            raise InvalidTokenError
        return Claims(key.issuer, subject, session, _scopes(claims), int(claims["exp"]))

    def jwks(self) -> dict[str, list[Mapping[str, Any]]]:
        """The public keys (RFC 7517 §5), which other services verify the tokens with."""
        return {"keys": [key.jwk for key in self._keys if key.jwk is not None]}

    async def _key(self, header: Mapping[str, Any]) -> Key:
        id = header.get("kid")
        key = self._by_id.get(id) if isinstance(id, str) else None
        if key is None and self._remote is not None and isinstance(id, str):
            key = await self._remote.get(id)
        if key is None:
            raise InvalidTokenError
        return key


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Of `scope` (RFC 9068 §2.2.3), or a list as some providers write it, in `scp` or `permissions`."""
    found: set[str] = set()
    for name in ("scope", "scp", "permissions"):
        value = claims.get(name, "")
        texts = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else []
        found |= {text for text in texts if isinstance(text, str) and text}
    return frozenset(found)
