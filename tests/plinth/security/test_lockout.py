"""Attempts to sign in, as they are counted in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from plinth.database import Database, DatabaseSettings, open_database
from plinth.errors import LimitError
from plinth.security import Lockout
from plinth.security.lockout import FIRST_SECONDS, FREE_ATTEMPTS, FREE_ATTEMPTS_ANYWHERE, LONGEST_SECONDS

ACCOUNT, HERE, ELSEWHERE = "ada@example.com", "192.0.2.1", "192.0.2.2"


@pytest.fixture
async def database(database_url: str, onlooker: asyncpg.Connection) -> AsyncIterator[Database]:
    await onlooker.execute("DELETE FROM plinth_login_attempts")
    settings = DatabaseSettings(url=database_url).for_jobs  # many at once wait for a connection, however slow it is
    async with open_database(settings, "test") as database:
        yield database


@pytest.fixture
def lockout(database: Database) -> Lockout:
    return Lockout(database.sessions)


async def attempts(lockout: Lockout, count: int, address: str = HERE) -> None:
    for _ in range(count):
        await lockout.count(ACCOUNT, address)


async def seconds_to_wait(lockout: Lockout, address: str = HERE) -> int:
    with pytest.raises(LimitError) as refused:
        await lockout.count(ACCOUNT, address)
    return refused.value.retry_after_seconds


async def later(onlooker: asyncpg.Connection, seconds: int) -> None:
    """As if so much time had passed."""
    moved = ", ".join(f"{name} = {name} - make_interval(secs => {seconds})" for name in ("last_at", "locked_until"))
    await onlooker.execute(f"UPDATE plinth_login_attempts SET {moved}")


async def test_some_attempts_are_free_and_the_next_have_to_wait(lockout: Lockout, onlooker: asyncpg.Connection) -> None:
    await attempts(lockout, FREE_ATTEMPTS)
    await lockout.count(ACCOUNT, HERE)  # counted, and the first to lock
    waits = []
    for _ in range(8):
        waits.append(await seconds_to_wait(lockout))
        await later(onlooker, LONGEST_SECONDS)
        await lockout.count(ACCOUNT, HERE)
    expected = [min(LONGEST_SECONDS, FIRST_SECONDS * 2**doubled) for doubled in range(8)]
    assert [abs(wait - each) <= 5 for wait, each in zip(waits, expected, strict=True)] == [True] * 8, waits


async def test_those_who_guess_do_not_lock_out_others(lockout: Lockout) -> None:
    await attempts(lockout, FREE_ATTEMPTS + 1)
    await seconds_to_wait(lockout)
    await lockout.count(ACCOUNT, ELSEWHERE)
    await lockout.count("grace@example.com", HERE)


async def test_refused_attempts_do_not_count_against_the_account(lockout: Lockout) -> None:
    await attempts(lockout, FREE_ATTEMPTS + 1)
    for _ in range(2 * FREE_ATTEMPTS_ANYWHERE):
        await seconds_to_wait(lockout)
    await lockout.count(ACCOUNT, ELSEWHERE)


async def test_guessing_from_many_addresses_is_slow_too(lockout: Lockout) -> None:
    for number in range(FREE_ATTEMPTS_ANYWHERE + 1):
        await lockout.count(ACCOUNT, f"198.51.100.{number}")
    await seconds_to_wait(lockout, ELSEWHERE)
    await lockout.count("grace@example.com", ELSEWHERE)


async def test_success_forgets_the_attempts_from_its_address_and_of_the_account(
    lockout: Lockout, onlooker: asyncpg.Connection
) -> None:
    await attempts(lockout, FREE_ATTEMPTS)
    await lockout.count(ACCOUNT, ELSEWHERE)
    await lockout.forget(ACCOUNT, HERE)
    assert await onlooker.fetchval("SELECT count(*) FROM plinth_login_attempts") == 1
    await attempts(lockout, FREE_ATTEMPTS)


async def test_of_many_attempts_at_once_no_more_pass_than_one_by_one(lockout: Lockout) -> None:
    results = await asyncio.gather(*(lockout.count(ACCOUNT, HERE) for _ in range(40)), return_exceptions=True)
    assert [result for result in results if not isinstance(result, LimitError)] == [None] * (FREE_ATTEMPTS + 1)


async def test_old_attempts_are_forgotten_and_pruned(lockout: Lockout, onlooker: asyncpg.Connection) -> None:
    await attempts(lockout, FREE_ATTEMPTS)
    await later(onlooker, 86_401)
    await attempts(lockout, FREE_ATTEMPTS)
    await lockout.prune()
    assert await onlooker.fetchval("SELECT count(*) FROM plinth_login_attempts") == 2
    await later(onlooker, 86_401)
    await lockout.prune()
    assert await onlooker.fetchval("SELECT count(*) FROM plinth_login_attempts") == 0


async def test_neither_account_nor_address_is_stored(lockout: Lockout, onlooker: asyncpg.Connection) -> None:
    await lockout.count("a\ud800\nb", HERE)
    await lockout.count("a", f"b\n{HERE}")
    keys = [row["key"] for row in await onlooker.fetch("SELECT key FROM plinth_login_attempts")]
    assert {len(key) for key in keys} == {32}
    assert len(keys) == 4
