import logging
from datetime import timedelta
from typing import NamedTuple, NoReturn
from uuid import UUID, uuid4

from app import tags
from app.enums import Role
from app.repositories.auth import AuthQueries, AuthRepository, OwnTransaction
from app.repositories.users import UserQueries, UserRepository
from app.schemas.auth import TokenPair
from app.schemas.users import SessionRead, Sessions
from app.scopes import ROLES
from plinth.cache import Cache, Invalidate
from plinth.database import Versions, check_version
from plinth.errors import InvalidTokenError, NotFoundError, UnauthenticatedError
from plinth.security import Lockout, Passwords, Principal, Tokens, has_form, hash_secret, new_secret

log = logging.getLogger(__name__)

REFRESH_PREFIX = "refresh_"
GRACE = timedelta(seconds=10)
"""In which a refresh token may be used again: the answer may have been lost, or two tabs may have sent it."""


class Device(NamedTuple):
    """Where a request comes from."""

    address: str
    user_agent: str


class Session(NamedTuple):
    """A session has no version: of the conditions of a request only `If-Match: *` holds, that it exists."""

    id: UUID
    version: int = -1


class TokenIssuer:
    """Issues the tokens of a session."""

    def __init__(self, tokens: Tokens, refresh_seconds: int) -> None:
        self._tokens = tokens
        self.lifetime = timedelta(seconds=refresh_seconds)

    async def issue(self, auth: AuthRepository, login_id: UUID, user_id: int, role: Role) -> TokenPair:
        secret, hash = new_secret(REFRESH_PREFIX)
        await auth.add_refresh_token(hash, login_id)
        return TokenPair(
            access_token=self._tokens.issue(str(user_id), str(login_id), ROLES[role]),
            refresh_token=secret,
            expires_in=self._tokens.access_seconds,
        )


class LoginService:
    """Begins sessions, and ends them."""

    def __init__(
        self,
        auth: AuthRepository,
        users: UserRepository,
        accounts: UserQueries,
        *,
        passwords: Passwords,
        lockout: Lockout,
        issuer: TokenIssuer,
        invalidate: Invalidate,
    ) -> None:
        """`accounts` reads outside of the transaction: no connection is held while a password is verified."""
        self._auth = auth
        self._users = users
        self._accounts = accounts
        self._passwords = passwords
        self._lockout = lockout
        self._issuer = issuer
        self._invalidate = invalidate

    async def login(self, email: str, password: str, device: Device) -> TokenPair:
        """Raises UnauthenticatedError, LimitError after many attempts, and UnavailableError where too many wait.

        Whether the account does not exist, is not active or has another password makes no difference in the answer,
        in the hashes that are computed, or in the statements that are sent.
        """
        await self._lockout.count(email, device.address)
        found = await self._accounts.credentials(email)
        is_correct, new_hash = await self._passwords.verify(password, found.password_hash if found else None)
        if found is None or not is_correct or not found.is_active:
            _refuse()
        await self._lockout.forget(email, device.address)
        # Locked and compared: between the two reads the password may have been changed, which ended all sessions.
        user = await self._users.find(found.id)
        if user is None or not user.is_active or user.password_hash != found.password_hash:
            _refuse()
        if new_hash is not None:
            user.password_hash = new_hash
        id = uuid4()
        await self._auth.add_login(id, user.id, device.user_agent, self._issuer.lifetime)
        self._invalidate(tags.LOGIN(id))  # so that a replica that lags is not asked for it
        return await self._issuer.issue(self._auth, id, user.id, user.role)

    async def logout(self, principal: Principal, everywhere: bool) -> None:
        """End the session that the request belongs to, or all of its user."""
        user_id, id = int(principal.id), UUID(principal.credential)
        if everywhere:
            await self._auth.delete_logins(user_id)
            self._invalidate(tags.USER(user_id))
        else:
            await self._auth.delete_login(id, user_id)
            self._invalidate(tags.LOGIN(id))

    async def revoke(self, principal: Principal, id: UUID, versions: Versions = None) -> None:
        """End a session of the same user. Raises NotFoundError, and ChangedError for a version, which none has."""
        if not await self._auth.delete_login(id, int(principal.id)):
            raise NotFoundError("session", str(id))
        check_version(Session(id), versions)
        self._invalidate(tags.LOGIN(id))


class RefreshService:
    def __init__(self, transaction: OwnTransaction, issuer: TokenIssuer, cache: Cache) -> None:
        self._transaction = transaction
        self._issuer = issuer
        self._cache = cache

    async def refresh(self, secret: str) -> TokenPair:
        """Exchange a refresh token for a new pair. Raises InvalidTokenError.

        One that was exchanged before was copied, by the client or from it: its session ends. That must be kept although
        the request fails, and raising rolls back; so the transaction is its own, and ends before the error is raised.
        """
        if not has_form(secret, REFRESH_PREFIX):
            raise InvalidTokenError
        hash, pair = hash_secret(secret), None
        async with self._transaction() as auth:
            login = await auth.lock_login(hash)
            if login is not None and await auth.use(hash, GRACE):
                await auth.prolong(login.id, self._issuer.lifetime)
                pair = await self._issuer.issue(auth, login.id, login.user_id, login.role)
            elif login is not None:
                await auth.delete_login(login.id, login.user_id)
        if login is not None:
            await self._cache.invalidate(tags.LOGIN(login.id))
            if pair is None:
                log.warning("A refresh token of session %s was used twice, so the session was ended", login.id)
        if pair is None:
            raise InvalidTokenError
        return pair


class SessionReader:
    def __init__(self, auth: AuthQueries) -> None:
        self._auth = auth

    async def all_of(self, principal: Principal) -> Sessions:
        devices = await self._auth.devices(int(principal.id))
        return Sessions(
            items=[SessionRead(**row._asdict(), is_current=str(row.id) == principal.credential) for row in devices]
        )


def _refuse() -> NoReturn:
    raise UnauthenticatedError("The email address or the password is wrong.")
