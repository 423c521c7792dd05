from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NoReturn
from uuid import UUID

from app import tags
from app.enums import Role
from app.jobs import ACCOUNT_MAIL, AccountMail
from app.models import User
from app.repositories.auth import AuthQueries, AuthRepository
from app.repositories.users import UserQueries, UserRepository
from app.schemas.auth import PasswordChange, PasswordReset, Registered, Registration
from plinth.cache import Invalidate
from plinth.errors import ConflictError, InvalidError, InvalidTokenError
from plinth.jobs import Jobs
from plinth.security import (
    Lockout,
    Passwords,
    Principal,
    has_form,
    hash_secret,
    new_secret,
    password_faults,
)

VERIFY, RESET = "verify", "reset"
LIFETIMES = {VERIFY: timedelta(days=3), RESET: timedelta(hours=1)}


class AccountService:
    """Registers accounts, and changes what proves whose they are: the address and the password."""

    def __init__(
        self,
        users: UserRepository,
        auth: AuthRepository,
        accounts: UserQueries,
        links: AuthQueries,
        *,
        passwords: Passwords,
        lockout: Lockout,
        jobs: Jobs,
        invalidate: Invalidate,
    ) -> None:
        """`accounts` and `links` read outside of the transaction: no connection is held while a password is hashed."""
        self._users = users
        self._auth = auth
        self._accounts = accounts
        self._links = links
        self._passwords = passwords
        self._lockout = lockout
        self._jobs = jobs
        self._invalidate = invalidate

    async def register(self, data: Registration) -> Registered:
        """Raises InvalidError for a password that is easily guessed.

        An address that is taken makes no difference but in the mail that is sent to it.
        """
        _check("password", data.password, data.email, data.name)
        hash = await self._passwords.hash(data.password)
        added = await self._users.add(email=data.email, name=data.name, password_hash=hash)
        found = await self._users.credentials(data.email)
        id = found.id if found else 0
        self._invalidate(tags.USER(id))  # so that a replica that lags is not asked for it
        await self._mail(id, data.email, "registered" if added is None else VERIFY)
        return Registered(email=data.email, name=data.name)

    async def verify(self, token: str) -> None:
        """Raises InvalidError for a link that is not valid."""
        user = await self._take(token, VERIFY)
        user.verified_at = user.verified_at or datetime.now(UTC)
        await self._users.flush()

    async def forget_password(self, email: str) -> None:
        """Have a link mailed, if there is an account. If there is none, the same is done for nothing."""
        found = await self._accounts.credentials(email)
        await self._mail(found.id if found and found.is_active else 0, email, RESET)

    async def reset_password(self, data: PasswordReset) -> None:
        """Raises InvalidError for a link that is not valid, or a password that is easily guessed."""
        if not _is_possible(data.token) or await self._links.user_of(hash_secret(data.token), RESET) is None:
            _refuse()  # before a hash is computed for nothing
        _check("password", data.password)
        hash = await self._passwords.hash(data.password)
        user = await self._take(data.token, RESET)
        _check("password", data.password, user.email, user.name)
        # The mail has arrived, so the address is the account's.
        user.verified_at = user.verified_at or datetime.now(UTC)
        await self._set_password(user, hash, but=None)

    async def change_password(self, principal: Principal, data: PasswordChange, address: str) -> None:
        """Raises InvalidError for a wrong password and for one that is easily guessed, LimitError after many of them.

        All other sessions end.
        """
        found = await self._accounts.credentials_of(int(principal.id))
        if found is None:
            raise InvalidTokenError
        await self._lockout.count(found.email, address)
        _check("new_password", data.new_password, found.email, found.name)
        is_correct, _ = await self._passwords.verify(data.current_password, found.password_hash)
        if not is_correct:
            raise InvalidError("current_password", "This is not the password of the account.")
        await self._lockout.forget(found.email, address)
        hash = await self._passwords.hash(data.new_password)
        # Not by a dependency: that would hold a connection while passwords are hashed, and Lockout needs another one.
        await self._users.record_actor(principal.name)
        user = await self._users.find(found.id)
        if user is None or user.password_hash != found.password_hash:
            raise InvalidError("current_password", "This is not the password of the account any more.")
        await self._set_password(user, hash, but=UUID(principal.credential))

    async def _set_password(self, user: User, hash: str, but: UUID | None) -> None:
        """End all sessions but one, in the same transaction."""
        user.password_hash = hash
        await self._users.flush()
        await self._auth.delete_logins(user.id, but)
        await self._auth.delete_mail_tokens(user.id, RESET)
        self._invalidate(tags.USER(user.id))
        await self._mail(user.id, user.email, "changed")

    async def _take(self, token: str, purpose: str) -> User:
        id = await self._auth.take_mail_token(hash_secret(token), purpose) if _is_possible(token) else None
        user = None if id is None else await self._users.find(id)
        if user is None or not user.is_active:
            _refuse()
        return user

    async def _mail(self, user_id: int, email: str, purpose: str) -> None:
        """While such a mail waits, no other is sent: none of these may be used to send many."""
        mail = AccountMail.model_validate({"user_id": user_id, "purpose": purpose})
        await self._jobs.enqueue(ACCOUNT_MAIL, mail, key=f"{purpose}:{hash_secret(email).hex()}")


class AccountCreator:
    """Creates accounts in the name of those who run the service."""

    def __init__(self, users: UserRepository, passwords: Passwords) -> None:
        self._users = users
        self._passwords = passwords

    async def create(self, data: Registration, role: Role) -> None:
        """Raises InvalidError for a password that is easily guessed, and ConflictError for an address that is taken."""
        _check("password", data.password, data.email, data.name)
        hash = await self._passwords.hash(data.password)
        values = {"email": data.email, "name": data.name, "role": role, "verified_at": datetime.now(UTC)}
        if await self._users.add(password_hash=hash, **values) is None:
            raise ConflictError(f"{data.email} has an account already. An administrator can change its role.")


class Letter(NamedTuple):
    email: str
    name: str
    secret: str
    """Of a link; empty where the mail has none."""


class AccountMailService:
    def __init__(self, users: UserQueries, auth: AuthRepository) -> None:
        self._users = users
        self._auth = auth

    async def prepare(self, mail: AccountMail) -> Letter | None:
        """What to mail to whom; None where there is no account, or it is not active."""
        user = await self._users.get(mail.user_id)
        if user is None or not user.is_active:
            return None
        if mail.purpose not in LIFETIMES:
            return Letter(user.email, user.name, "")
        secret, hash = new_secret("")
        await self._auth.add_mail_token(hash, user.id, mail.purpose, LIFETIMES[mail.purpose])
        return Letter(user.email, user.name, secret)


def _check(field: str, password: str, *personal: str) -> None:
    for fault in password_faults(password, *personal):
        raise InvalidError(field, fault)


def _is_possible(token: str) -> bool:
    return has_form(token, "")


def _refuse() -> NoReturn:
    raise InvalidError("token", "This link is not valid or has expired. Ask for another.")
