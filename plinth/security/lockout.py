"""Slows down the guessing of passwords: attempts on one account are counted in PostgreSQL, for all processes.

An attempt is counted before its password is verified, in a transaction of its own: many at once cannot pass before one
of them was counted, and a failed request does not take its count back.
"""

import hashlib
import math

from sqlalchemy import text

from plinth.database.sessions import Sessions
from plinth.errors import LimitError

FREE_ATTEMPTS = 5
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
FORGET = text("DELETE FROM plinth_login_attempts WHERE key = :key")
PRUNE = text("DELETE FROM plinth_login_attempts WHERE last_at < now() - make_interval(secs => :forgotten)")
LIMITS = {
    "free": FREE_ATTEMPTS,
    "first": float(FIRST_SECONDS),
    "longest": float(LONGEST_SECONDS),
    "forgotten": float(FORGOTTEN_SECONDS),
}


class Lockout:
    """After some attempts each makes the next one wait twice as long, whether or not the account exists."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def count(self, account: str) -> None:
        """Count an attempt. Raises LimitError where one must not be made yet."""
        values = {"key": _key(account)}
        async with self._sessions.begin() as session:
            if await session.scalar(COUNT, {**values, **LIMITS}) is not None:
                return
            seconds = await session.scalar(LOCKED, values)
        raise LimitError("There were too many attempts to sign in. Try again later.", max(1, math.ceil(seconds or 1)))

    async def forget(self, account: str) -> None:
        """Forget the attempts, after one that succeeded."""
        async with self._sessions.begin() as session:
            await session.execute(FORGET, {"key": _key(account)})


def _key(account: str) -> bytes:
    return hashlib.sha256(account.encode("utf-8", "surrogatepass")).digest()
