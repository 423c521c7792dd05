"""Passwords: which are accepted, and how many are hashed at once. Hashes are real."""

import asyncio
import hashlib
import string
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from argon2 import extract_parameters
from hypothesis import given
from hypothesis import strategies as st
from pwdlib.hashers.argon2 import Argon2Hasher

from plinth.errors import UnavailableError
from plinth.security import Passwords, open_passwords, password_faults
from plinth.security.passwords import MAX_CHARACTERS, MIN_CHARACTERS, common_passwords


class Counted(ThreadPoolExecutor):
    """Counts what its threads run at once. While `gate` is closed they go on with nothing."""

    def __init__(self) -> None:
        super().__init__(1, "passwords")
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.running = self.most = self.finished = 0
        self.lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        def counted() -> Any:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            self.entered.set()
            self.gate.wait()
            try:
                return function(*args, **kwargs)
            finally:
                with self.lock:
                    self.running -= 1
                    self.finished += 1

        return super().submit(counted)


@pytest.fixture
def executor() -> Iterator[Counted]:
    with Counted() as executor:
        yield executor
        executor.gate.set()


async def refused(passwords: Passwords) -> bool:
    try:
        async with asyncio.timeout(30):  # one that is not refused waits for as long as the gate is closed
            await passwords.verify("a password", None)
    except UnavailableError:
        return True
    return False


async def test_hashes_have_the_parameters_that_owasp_recommends() -> None:
    async with open_passwords(1) as passwords:
        hash = await passwords.hash("correct horse")
    found = extract_parameters(hash)
    assert hash.startswith("$argon2id$v=19$")
    assert (found.memory_cost, found.time_cost, found.parallelism) == (19 * 1024, 2, 1)
    assert (found.hash_len, found.salt_len) == (32, 16)


async def test_only_the_password_is_accepted() -> None:
    async with open_passwords(1) as passwords:
        hash = await passwords.hash("correct horse")
        assert await passwords.hash("correct horse") != hash, "salted"
        assert await passwords.verify("correct horse", hash) == (True, None)
        for other in ("correct horse ", "Correct horse", "correct hors", "", "correct horse\0", hash):
            assert await passwords.verify(other, hash) == (False, None), other


@pytest.mark.parametrize("hash", [None, "", "!", "$2b$12$abc", "$argon2id$v=19$m=1,t=1,p=1$a$b", "secret"])
async def test_no_password_fits_what_is_no_hash(hash: str | None) -> None:
    async with open_passwords(1) as passwords:
        for password in ("", "a password", hash or ""):
            assert await passwords.verify(password, hash) == (False, None)


async def test_a_hash_with_other_parameters_is_replaced() -> None:
    old = Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1).hash("correct horse")
    async with open_passwords(1) as passwords:
        assert await passwords.verify("wrong horse", old) == (False, None)
        accepted, new = await passwords.verify("correct horse", old)
        assert accepted
        assert new is not None
        assert extract_parameters(new).memory_cost == 19 * 1024
        assert await passwords.verify("correct horse", new) == (True, None)


async def test_nothing_is_cut_off() -> None:
    long = "a" * 127
    async with open_passwords(1) as passwords:
        hash = await passwords.hash(long + "b")
        assert await passwords.verify(long + "c", hash) == (False, None)
        assert await passwords.verify(long, hash) == (False, None)
        nul = await passwords.hash("before\0after")
        assert await passwords.verify("before\0other", nul) == (False, None)


async def test_the_same_letters_are_the_same_password() -> None:
    composed, decomposed = "Zürich-Straße-é", unicodedata.normalize("NFD", "Zürich-Straße-é")
    assert composed != decomposed
    async with open_passwords(1) as passwords:
        assert await passwords.verify(decomposed, await passwords.hash(composed)) == (True, None)
        assert await passwords.verify("ﬁne password", await passwords.hash("fine password")) == (False, None)
        assert await passwords.verify("\ud800", await passwords.hash("\ud800")) == (True, None), "no error at least"


async def argon2_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("hash", "verify"):
        original = getattr(Argon2Hasher, name)

        def counted(*args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(Argon2Hasher, name, counted)
    return calls


async def test_unknown_accounts_cost_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = await argon2_calls(monkeypatch)
    async with open_passwords(1) as passwords:
        hash = await passwords.hash("correct horse")
        for password, known in (("correct horse", hash), ("wrong horse", hash), ("a", None), ("b", None), ("c", "!")):
            calls.clear()
            await passwords.verify(password, known)
            assert calls == ["verify"], known


async def test_one_hash_is_computed_at_a_time(executor: Counted) -> None:
    passwords = Passwords(executor, 8)
    await asyncio.gather(*(passwords.verify("a password", None) for _ in range(8)))
    assert (executor.most, executor.finished) == (1, 8)


async def test_one_thread_computes_them_in_a_service() -> None:
    others = {*threading.enumerate()}
    async with open_passwords(8) as passwords:
        await asyncio.gather(*(passwords.verify("a password", None) for _ in range(8)))
        names = [thread.name for thread in {*threading.enumerate()} - others if thread.name.startswith("passwords")]
        assert len(names) == 1
    assert not [each for each in {*threading.enumerate()} - others if each.name.startswith("passwords")]


async def test_only_so_many_wait(executor: Counted) -> None:
    passwords = Passwords(executor, 3)
    executor.gate.clear()
    waiting = [asyncio.create_task(passwords.verify("a password", None)) for _ in range(3)]
    assert await asyncio.to_thread(executor.entered.wait, 30)
    for _ in range(5):
        assert await refused(passwords)
    executor.gate.set()
    assert await asyncio.gather(*waiting) == [(False, None)] * 3
    assert not await refused(passwords)
    assert executor.finished == 4, "nothing was computed for those that were refused"


async def test_a_cancelled_request_frees_its_place_when_its_hash_is_done(executor: Counted) -> None:
    passwords = Passwords(executor, 2)
    executor.gate.clear()
    running, waiting = (asyncio.create_task(passwords.verify("a password", None)) for _ in range(2))
    assert await asyncio.to_thread(executor.entered.wait, 30)
    assert await refused(passwords)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await refused(passwords), "the thread still computes it"

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    third = asyncio.create_task(passwords.verify("a password", None))
    await asyncio.sleep(0)
    assert await refused(passwords), "only the place of the one that waited was free"
    executor.gate.set()
    await third
    assert executor.finished == 2, "nothing was computed for the one that waited"
    assert [await refused(passwords) for _ in range(2)] == [False, False]


async def test_cancelled_requests_leak_no_places(executor: Counted) -> None:
    passwords = Passwords(executor, 4)
    for _ in range(5):
        tasks = [asyncio.create_task(passwords.verify("a password", None)) for _ in range(4)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wrap_future(ThreadPoolExecutor.submit(executor, int))  # the last one is done
    executor.gate.clear()
    tasks = [asyncio.create_task(passwords.verify("a password", None)) for _ in range(4)]
    await asyncio.sleep(0)
    assert await refused(passwords)
    executor.gate.set()
    assert len(await asyncio.gather(*tasks)) == 4


async def test_those_that_wait_at_the_end_are_computed() -> None:
    async with open_passwords(4) as passwords:
        waiting = [asyncio.create_task(passwords.verify("a password", None)) for _ in range(4)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == [(False, None)] * 4


def test_a_failure_frees_its_place() -> None:
    async def run() -> None:
        with Counted() as executor:
            passwords = Passwords(executor, 1)
            wrong: Any = 7
            for _ in range(3):
                with pytest.raises(TypeError):
                    await passwords.hash(wrong)
            assert not await refused(passwords)

    asyncio.run(run())


LENGTH, COMMON, PERSONAL = (
    "A password has 10 to 128 characters.",
    "one of the first to be guessed",
    "must not be the name",
)


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("a1b2c3d4e", LENGTH),
        ("", LENGTH),
        ("xq7" * 43, LENGTH),
        ("e\u0301u\u0308" * 4 + "x", LENGTH),  # nine letters
        ("password123", COMMON),
        ("PassWord123!", COMMON),
        ("ｐａｓｓｗｏｒｄ１２３", COMMON),
        ("password!!!!!!!!!", COMMON),
        ("qwertyuiop", COMMON),
        ("1234567890", COMMON),
        ("aaaaaaaaaaaaaaaa", COMMON),
        ("abababababab", COMMON),
        ("ada.lovelace@example.com", PERSONAL),
        ("Ada.Lovelace", PERSONAL),
        ("ada.lovelace1815", PERSONAL),
        ("ADA LOVELACE!", PERSONAL),
        ("example billing", PERSONAL),
    ],
)
def test_passwords_that_are_guessed_first_are_refused(password: str, sentence: str) -> None:
    faults = [*password_faults(password, "ada.lovelace@example.com", "Ada Lovelace", "Example Billing")]
    assert len(faults) == 1
    assert sentence in faults[0]


@pytest.mark.parametrize(
    "password",
    [
        *(
            "correct horse battery staple",
            "kleine-Ente-7",
            "xq7vw9zk2m",
            "xq7v" * 32,
            "密码学很有趣但也很难",
            "🦊🐢🐍🦀🐙🦑🐳🦭🐧🦉",
        ),
        *("        a lone b", "the name Ada Lovelace in a sentence", "a8273645190273"),
    ],
)
def test_other_passwords_are_accepted(password: str) -> None:
    assert [*password_faults(password, "a@example.com", "", "Ada Lovelace")] == []


def test_every_common_password_is_refused() -> None:
    assert sum(len(password) >= MIN_CHARACTERS for password in common_passwords()) > 3000  # ASVS 5, 6.2.4
    for password in common_passwords():
        assert [*password_faults(password)], password


ALPHABETS = [
    string.ascii_lowercase,
    string.ascii_letters + string.digits,
    string.digits + string.punctuation,
    "".join(map(chr, range(0x4E00, 0x9000))),
]


@given(st.sampled_from(ALPHABETS), st.integers(12, MAX_CHARACTERS), st.binary(min_size=16, max_size=16))
def test_long_random_passwords_are_accepted_whatever_they_consist_of(alphabet: str, length: int, seed: bytes) -> None:
    stream = hashlib.shake_256(seed).digest(4 * length)
    numbers = [int.from_bytes(stream[index : index + 4]) for index in range(0, 4 * length, 4)]
    assert [*password_faults("".join(alphabet[number % len(alphabet)] for number in numbers), "ada@example.com")] == []


def test_lengths_are_those_of_the_specification() -> None:
    assert (MIN_CHARACTERS, MAX_CHARACTERS) == (10, 128)
