"""The keys of an OpenID provider, which a service trusts to say who sends a request.

They are found by discovery (https://openid.net/specs/openid-connect-discovery-1_0.html), kept, and fetched again for a
key that is not known: at most once in `REFRESH_SECONDS`, so that made-up ids cost the provider nothing.
"""

import asyncio
import json
import logging
import math
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from plinth.errors import UnavailableError
from plinth.security.keys import Key

log = logging.getLogger(__name__)

REFRESH_SECONDS = 30.0
KEEP_SECONDS = 3600.0
"""After which keys are fetched again, so that one that was withdrawn is not trusted for ever."""
FETCH_SECONDS = 10.0
MAX_BYTES = 262_144
MAX_KEYS = 100
ASYMMETRIC = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
"""Not HS256: its secret would be in the document."""
FAULTS = (
    *(httpx.HTTPError, httpx.InvalidURL, UnavailableError, TimeoutError),
    *(ValueError, KeyError, TypeError, AttributeError, RuntimeError),  # RecursionError; httpx's client is closed
)


class DiscoveredKeys:
    def __init__(self, issuer: str, http: httpx.AsyncClient, *, clock: Callable[[], float] = monotonic) -> None:
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._fetched_at = self._tried_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, id: str) -> Key | None:
        """Raises UnavailableError where no key is known, since the provider cannot be reached."""
        now = self._clock()
        if id not in self._keys or now - self._fetched_at > KEEP_SECONDS:
            if self._fetching is None and now - self._tried_at > REFRESH_SECONDS:
                self._tried_at = now
                # In a context of its own: the deadline of this request is not that of the others, which wait too.
                self._fetching = asyncio.create_task(self._fetch(), context=Context())
            if self._fetching is not None:
                await asyncio.shield(self._fetching)  # a request that is cancelled leaves it to the others
        if self._fetched_at == -math.inf:
            raise UnavailableError("The keys of the token's issuer cannot be fetched. Try again.")
        return self._keys.get(id)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await self._read(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                if document["issuer"] != self._issuer:
                    raise ValueError("its document names another issuer")
                keys = (await self._read(document["jwks_uri"]))["keys"][:MAX_KEYS]
            self._keys = {key.id: key for each in keys if (key := self._parsed(each)) is not None}
            self._fetched_at = self._clock()
        except FAULTS as error:
            # Those that are known stay valid: an outage of the provider is none of ours.
            log.warning("The keys of %s cannot be fetched: %r", self._issuer, error)
        finally:
            self._fetching = None

    async def _read(self, url: str) -> Any:
        if url.partition(":")[0] != self._issuer.partition(":")[0]:
            raise ValueError("it moves from https to http")
        content = bytearray()
        async with self._http.stream("GET", url, headers={"Accept": "application/json"}) as response:
            response.raise_for_status()  # for a redirect, too
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise ValueError("it is too large")
        return json.loads(content)

    def _parsed(self, jwk: Any) -> Key | None:
        try:
            parsed = jwt.PyJWK(jwk)
            id, algorithm = jwk["kid"], parsed.algorithm_name
            is_to_verify = jwk.get("use", "sig") == "sig" and "verify" in jwk.get("key_ops", ["verify"])
            is_weak = parsed.Algorithm.check_key_length(parsed.key) is not None
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
            return None  # of a kind that we cannot use
        usable = algorithm in ASYMMETRIC and is_to_verify and not is_weak and "d" not in jwk  # the private part
        return Key(id, algorithm, self._issuer, parsed.key) if usable and id and isinstance(id, str) else None
