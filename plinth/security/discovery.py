"""The keys of an OpenID provider, which a service trusts to say who sends a request.

They are found by discovery (https://openid.net/specs/openid-connect-discovery-1_0.html), kept, and fetched again for a
key that is not known: at most once in `REFRESH_SECONDS`, so that made-up ids cost the provider nothing.
"""

import asyncio
import logging
from time import monotonic
from typing import Any

import httpx
import jwt

from plinth.errors import UnavailableError
from plinth.security.keys import Key

log = logging.getLogger(__name__)

REFRESH_SECONDS = 30.0
KEEP_SECONDS = 3600.0
"""After which keys are fetched again, so that one that was withdrawn is not trusted for ever."""
MAX_BYTES = 262_144
MAX_KEYS = 100
ASYMMETRIC = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
"""Not HS256: its secret would be in the document."""


class DiscoveredKeys:
    def __init__(self, issuer: str, http: httpx.AsyncClient) -> None:
        self._issuer = issuer
        self._http = http
        self._keys: dict[str, Key] = {}
        self._fetched_at = self._tried_at = -KEEP_SECONDS
        self._lock = asyncio.Lock()

    async def get(self, id: str) -> Key | None:
        """Raises UnavailableError where no key is known, since the provider cannot be reached."""
        if (key := self._fresh(id)) is not None:
            return key
        async with self._lock:
            if (key := self._fresh(id)) is None and monotonic() - self._tried_at > REFRESH_SECONDS:
                await self._fetch()
                self._tried_at = monotonic()  # not before: a request that is cancelled has not tried
            if not self._keys:
                raise UnavailableError("The keys of the token's issuer cannot be fetched. Try again.")
            return key or self._keys.get(id)

    def _fresh(self, id: str) -> Key | None:
        return self._keys.get(id) if monotonic() - self._fetched_at < KEEP_SECONDS else None

    async def _fetch(self) -> None:
        try:
            document = await self._read(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if document.get("issuer") != self._issuer:
                raise ValueError("its document names another issuer")
            keys = (await self._read(str(document["jwks_uri"])))["keys"][:MAX_KEYS]
        except (httpx.HTTPError, UnavailableError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Those that are known stay valid: an outage of the provider is none of ours.
            log.warning("The keys of %s cannot be fetched: %r", self._issuer, error)
            return
        self._keys = {key.id: key for each in keys if (key := self._parsed(each)) is not None}
        self._fetched_at = monotonic()

    async def _read(self, url: str) -> Any:
        if url.partition(":")[0] != self._issuer.partition(":")[0]:
            raise ValueError("it moves from https to http")
        response = await self._http.get(url, headers={"Accept": "application/json"})
        response.raise_for_status()
        if len(response.content) > MAX_BYTES:
            raise ValueError("it is too large")
        return response.json()

    def _parsed(self, jwk: Any) -> Key | None:
        try:
            parsed = jwt.PyJWK(jwk)
        except (jwt.PyJWTError, AttributeError, ValueError, TypeError):
            return None  # of a kind that we cannot use
        usable = parsed.algorithm_name in ASYMMETRIC and jwk.get("use", "sig") == "sig" and parsed.key_id
        return Key(str(parsed.key_id), parsed.algorithm_name, self._issuer, parsed.key) if usable else None
