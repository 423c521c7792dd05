from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from app import tags
from app.repositories.api_keys import ApiKeyQueries, KeyStateRow
from app.repositories.auth import AuthQueries, LoginRow
from app.repositories.users import StateRow, UserQueries
from app.scopes import API_KEY_PREFIX, ROLES
from plinth.cache import Cache, Tag
from plinth.errors import InvalidTokenError
from plinth.security import Claims, Principal, Tokens, has_form, hash_secret

TTL = 60.0
LOGIN: Any = LoginRow | None


class AccessService:
    """Who sends a request. What may be revoked is cached, so that most requests cost no query.

    The scopes of a principal are those that its user's role has now, and not those that it had at sign-in.
    """

    def __init__(
        self,
        tokens: Tokens,
        cache: Cache,
        auth: AuthQueries,
        users: UserQueries,
        keys: ApiKeyQueries,
        *,
        trusted_scopes: frozenset[str],
    ) -> None:
        self._tokens = tokens
        self._cache = cache
        self._auth = auth
        self._users = users
        self._keys = keys
        self._trusted_scopes = trusted_scopes

    async def principal(self, credential: str) -> Principal:
        """Raises InvalidTokenError."""
        if credential.startswith(API_KEY_PREFIX):
            return await self._of_key(credential)
        claims = await self._tokens.verify(credential)
        if claims.issuer != self._tokens.issuer:
            return Principal("issuer", claims.subject, claims.scopes & self._trusted_scopes)
        return await self._of_login(claims)

    async def _of_login(self, claims: Claims) -> Principal:
        try:
            session = _session(claims.session, claims.subject)
        except ValueError:  # of another service that has the same key
            raise InvalidTokenError from None

        async def load() -> LoginRow | None:
            return await self._auth.login(session.id)

        login = await self._cache.remember(session.key, TTL, load, schema=LOGIN, tags=session.tags)
        if (
            login is None
            or login.user_id != session.user_id
            or not login.is_active
            or login.expires_at <= datetime.now(UTC)
        ):
            raise InvalidTokenError
        return Principal("user", claims.subject, ROLES[login.role], claims.session)

    async def _of_key(self, credential: str) -> Principal:
        if not has_form(credential, API_KEY_PREFIX):
            raise InvalidTokenError
        hash = hash_secret(credential)

        async def load_key() -> KeyStateRow | None:
            return await self._keys.state(hash)

        key = await self._cache.remember(
            f"api_key:{hash.hex()}", TTL, load_key, schema=KeyStateRow | None, tags=(tags.API_KEY(hash.hex()),)
        )
        if key is None or (key.expires_at is not None and key.expires_at <= datetime.now(UTC)):
            raise InvalidTokenError
        user_id = key.user_id

        async def load_user() -> StateRow | None:
            return await self._users.state(user_id)

        user = await self._cache.remember(
            f"user:{user_id}", TTL, load_user, schema=StateRow | None, tags=(tags.USER(user_id),)
        )
        if user is None or not user.is_active:
            raise InvalidTokenError
        return Principal("key", str(user_id), ROLES[user.role] & frozenset(key.scopes), str(key.id))


class Session(NamedTuple):
    """What follows from the claims of a token alone, and is the same in each of its requests."""

    id: UUID
    user_id: int
    key: str
    tags: tuple[Tag, Tag]


@lru_cache(maxsize=1000)
def _session(session: str, subject: str) -> Session:
    id, user_id = UUID(session), int(subject)
    return Session(id, user_id, f"login:{id}", tags=(tags.LOGIN(id), tags.USER(user_id)))
