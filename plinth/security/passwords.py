"""Passwords: which are accepted, and how they are hashed (Argon2id with OWASP's parameters) without blocking others.

A hash takes 19 MiB and a core for tens of milliseconds, so each process computes one at a time, in a thread.
https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from plinth.errors import UnavailableError

ResultT = TypeVar("ResultT")

MEMORY_KIB, PASSES, LANES = 19_456, 2, 1
MIN_CHARACTERS, MAX_CHARACTERS = 10, 128
LEAST_DIFFERENT = 4  # characters
COMMON = Path(__file__).parent / "common_passwords.txt"


class Passwords:
    def __init__(self, executor: ThreadPoolExecutor, most_waiting: int) -> None:
        self._hasher = PasswordHash([Argon2Hasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)])
        self._executor = executor
        self._most_waiting = most_waiting
        self._waiting = 0
        self._nobodys = ""

    async def hash(self, password: str) -> str:
        """Raises UnavailableError where too many wait already."""
        return await self._run(partial(self._hasher.hash, password))

    async def verify(self, password: str, hash: str | None) -> tuple[bool, str | None]:
        """Whether it is the password, and its new hash where the parameters have changed since.

        Without a hash, as for an account that does not exist, the same work is done for nothing. Raises
        UnavailableError where too many wait already.
        """
        return await self._run(partial(self._verify, password, hash))

    def _verify(self, password: str, hash: str | None) -> tuple[bool, str | None]:
        self._nobodys = self._nobodys or self._hasher.hash(secrets.token_urlsafe())
        try:
            return self._hasher.verify_and_update(password, hash or self._nobodys)
        except UnknownHashError:  # of an account that has no password
            self._hasher.verify(password, self._nobodys)
            return False, None

    async def _run(self, function: Callable[[], ResultT]) -> ResultT:
        if self._waiting >= self._most_waiting:
            raise UnavailableError("Too many are signing in at once. Try again.")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, function)
        future.add_done_callback(self._done)  # a request that was cancelled leaves its work to be done
        return await future

    def _done(self, future: "asyncio.Future[ResultT]") -> None:
        self._waiting -= 1


@asynccontextmanager
async def open_passwords(most_waiting: int) -> AsyncIterator[Passwords]:
    """Open what hashes passwords: at most `most_waiting` at once, of which all but one wait."""
    executor = ThreadPoolExecutor(1, "passwords")
    try:
        passwords = Passwords(executor, most_waiting)
        await passwords.verify("", None)  # what the first one would need longer for than others
        yield passwords
    finally:
        executor.shutdown(cancel_futures=True)


def password_faults(password: str, *personal: str) -> Iterator[str]:
    """Why a new password is refused, a sentence each: length and commonness, and no rules of composition.

    `personal` is what guessing begins with, such as the email address.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        yield f"A password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters."
    elif _is_common(password.casefold()):
        yield "This password is one of the first to be guessed. Choose another."
    elif password.casefold() in {part for text in personal for part in _parts(text.casefold())}:
        yield "The password must not be the name or the address of the account. Choose another."


def _parts(text: str) -> Iterator[str]:
    yield text
    yield text.partition("@")[0]


def _is_common(password: str) -> bool:
    """Whether it is a common password, one followed by digits and punctuation, or a few characters repeated."""
    word = password.rstrip("0123456789!?.,_-+*#$@ ")
    return password in common_passwords() or word in common_passwords() or len({*password}) < LEAST_DIFFERENT


@cache
def common_passwords() -> frozenset[str]:
    """Those of the lists of Django and zxcvbn that are long enough, and words that are common when a digit follows."""
    return frozenset(COMMON.read_text("utf-8").splitlines())
