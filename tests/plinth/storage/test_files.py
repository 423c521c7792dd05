"""Files and the transaction that names them: what a row names is there, whatever becomes of the transaction."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from sqlalchemy import literal, select

from plinth.errors import OutcomeUnknownError
from plinth.settings import Settings
from plinth.storage import Files, Storage
from tests.plinth.database.test_sessions import FaultyWire, wired

ONE = select(literal(1))
OUTCOMES: dict[str, set[bytes]] = {
    "committed": {b"new"},
    "failed": {b"old"},
    "failed before the first statement": {b"old"},
    "unknown": {b"old", b"new"},  # a row names one of the two
}


async def chunks(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_the_files_after_a_transaction(
    settings: Settings, storage: Storage, files: Callable[[], dict[str, bytes]], outcome: str
) -> None:
    await storage.put("folder/old", chunks(b"old"))
    async with wired(settings, FaultyWire) as (wire, database):
        with suppress(LookupError, OutcomeUnknownError):
            async with database.sessions.begin() as session:
                each = Files(storage, session)
                file = await each.put("folder", chunks(b"n", b"ew"), lambda head: f"text/{head.decode()}")
                assert (file.content_type, file.size, len(file.hash)) == ("text/new", 3, 32)
                assert {*files().values()} == {b"old", b"new"}
                each.delete("folder/old")
                if outcome == "failed before the first statement":
                    raise LookupError
                await session.execute(ONE)
                assert {*files().values()} == {b"old", b"new"}
                wire.cuts = outcome == "unknown"
                if outcome == "failed":
                    raise LookupError
    assert {*files().values()} == OUTCOMES[outcome]


async def test_what_is_refused_is_not_stored(
    settings: Settings, storage: Storage, files: Callable[[], dict[str, bytes]]
) -> None:
    heads: list[bytes] = []

    def refuse(head: bytes) -> str:
        heads.append(head)
        raise LookupError

    for contents in [(), (b"a" * 10, b"b" * 10, b"c")]:
        with pytest.raises(LookupError):
            async with wired(settings, FaultyWire) as (_, database), database.sessions.begin() as session:
                await Files(storage, session).put("folder", chunks(*contents), refuse)
    assert heads == [b"", b"a" * 10 + b"b" * 10]
    assert files() == {}
