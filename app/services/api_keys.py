from datetime import UTC, datetime

from app import tags
from app.repositories.api_keys import ApiKeyQueries, ApiKeyRepository
from app.repositories.users import UserRepository
from app.schemas.api_keys import ApiKeyCreate, ApiKeyCreated, ApiKeyRead, ApiKeys
from app.scopes import API_KEY_PREFIX
from plinth.cache import Invalidate
from plinth.database import Versions, check_version
from plinth.errors import ConflictError, InvalidError, NotFoundError
from plinth.security import Principal, new_secret

MOST_KEYS = 50
HINT_CHARACTERS = len(API_KEY_PREFIX) + 6


class ApiKeyReader:
    def __init__(self, keys: ApiKeyQueries) -> None:
        self._keys = keys

    async def all_of(self, principal: Principal) -> ApiKeys:
        rows = await self._keys.all_of(int(principal.id))
        return ApiKeys(items=[ApiKeyRead(**row._asdict()) for row in rows])


class ApiKeyService:
    def __init__(self, keys: ApiKeyRepository, users: UserRepository, invalidate: Invalidate) -> None:
        self._keys = keys
        self._users = users
        self._invalidate = invalidate

    async def create(self, principal: Principal, data: ApiKeyCreate) -> ApiKeyCreated:
        """Raises InvalidError for scopes that the user lacks or an instant that has passed, and ConflictError."""
        user_id = int(principal.id)
        if lacking := sorted({*data.scopes} - principal.scopes):
            raise InvalidError("scopes", f"You may not do this yourself: {', '.join(lacking)}.")
        if data.expires_at is not None and data.expires_at <= datetime.now(UTC):
            raise InvalidError("expires_at", "This instant has passed. Choose one in the future.")
        user = await self._users.find(user_id)  # locked, so that keys of one user are created one after the other
        if user is None or user.verified_at is None:
            # Otherwise a key could outlive the reset by which the owner of an address takes over an account that was
            # made in its name.
            raise ConflictError("Confirm your email address before you make API keys.")
        if await self._keys.count(user_id) >= MOST_KEYS:
            raise ConflictError(f"You have {MOST_KEYS} API keys already. Delete one that is not used.")
        secret, hash = new_secret(API_KEY_PREFIX)
        values = {"name": data.name, "scopes": sorted({*data.scopes}), "expires_at": data.expires_at}
        shown = {**values, "hint": secret[:HINT_CHARACTERS]}
        id, created_at = await self._keys.add(user_id=user_id, hash=hash, **shown)
        self._invalidate(tags.API_KEY(hash.hex()))  # so that a replica that lags is not asked for it
        return ApiKeyCreated(id=id, created_at=created_at, key=secret, **shown)

    async def delete(self, principal: Principal, id: int, versions: Versions = None) -> None:
        """Raises NotFoundError for a key that is not the user's, and ChangedError for another version."""
        key = await self._keys.find(id, int(principal.id))
        if key is None:
            raise NotFoundError("key", id)
        check_version(key, versions)
        await self._keys.delete(key)
        self._invalidate(tags.API_KEY(key.hash.hex()))
