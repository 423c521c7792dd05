"""Slows down the guessing of passwords: attempts on one account are counted in PostgreSQL, for all processes.

They are counted by account and address, so that those who guess do not lock out the account's owner elsewhere, and by
account alone, so that guessing from many addresses is slow, too.

An attempt is counted before its password is verified, in a transaction of its own: many at once cannot pass before one
of them was counted, and a failed request does not take its count back.
"""

import hashlib
import math

from sqlalchemy import text

from plinth.database.sessions import Sessions
from plinth.errors import LimitError

FREE_ATTEMPTS = 5
"""From one address."""
FREE_ATTEMPTS_ANYWHERE = 50
FIRST_SECONDS, LONGEST_SECONDS = 30, 900
FORGOTTEN_SECONDS = 86_400

COUNT = text("""
    INSERT INTO plinth_login_attempts AS known (key, attempts, last_at, locked_until)
    VALUES (:key, 1, now(), now())
    ON CONFLICT (key) DO UPDATE SET
        attempts = CASE
            WHEN known.last_at < now() - make_interval(secs => :forgotten) THEN 1
            ELSE least(known.attempts + 1, 1000)
        END,
        last_at = now(),
        locked_until = CASE
            WHEN known.last_at < now() - make_interval(secs => :forgotten) OR known.attempts < :free THEN now()
            ELSE now() + make_interval(secs => least(:longest, :first * 2.0 ^ least(known.attempts - :free, 20)))
        END
    WHERE known.locked_until <= now()
    RETURNING attempts
""")
LOCKED = text("SELECT extract(epoch FROM locked_until - now()) FROM plinth_login_attempts WHERE key = :key")
FORGET = text("DELETE FROM plinth_login_attempts WHERE key IN (:key, :key_anywhere)")
PRUNE = text("DELETE FROM plinth_login_attempts WHERE last_at < now() - make_interval(secs => :forgotten)")
LIMITS = {
    "first": float(FIRST_SECONDS),
    "longest": float(LONGEST_SECONDS),
    "forgotten": float(FORGOTTEN_SECONDS),
}


class Lockout:
    """After some attempts each makes the next one wait twice as long, whether or not the account exists."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def count(self, account: str, address: str) -> None:
        """Count an attempt from an address. Raises LimitError where one must not be made yet."""
        here, anywhere = _keys(account, address)
        async with self._sessions.begin() as session:
            # In this order: attempts from an address that has to wait do not count against the account.
            for key, free in ((here, FREE_ATTEMPTS), (anywhere, FREE_ATTEMPTS_ANYWHERE)):
                if await session.scalar(COUNT, {"key": key, "free": free, **LIMITS}) is None:
                    seconds = await session.scalar(LOCKED, {"key": key})
                    break
            else:
                return
        raise LimitError("There were too many attempts to sign in. Try again later.", max(1, math.ceil(seconds or 1)))

    async def forget(self, account: str, address: str) -> None:
        """Forget the attempts, after one that succeeded."""
        here, anywhere = _keys(account, address)
        async with self._sessions.begin() as session:
            await session.execute(FORGET, {"key": here, "key_anywhere": anywhere})

    async def prune(self) -> None:
        """Delete the counts that no longer matter."""
        async with self._sessions.begin() as session:
            await session.execute(PRUNE, LIMITS)


def _keys(account: str, address: str) -> tuple[bytes, bytes]:
    """Of the account at the address, and of the account: hashes, since anything may be sent as one."""
    here, anywhere = f"{account}\n{address}", account
    return _hash(here), _hash(anywhere)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
