"""Cursors: what a client may send back, with a key and without."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import insert

from plinth.database import Database, open_database
from plinth.database.cursors import VERSION, Cursors
from plinth.errors import InvalidError
from plinth.settings import Settings
from tests.plinth.database.tables import Thing
from tests.plinth.database.test_keyset import PAGES

KEY, OTHER = SecretStr("k" * 32), SecretStr("o" * 32)
PLAIN, SIGNED = Cursors(), Cursors(KEY)


@given(position=st.binary(max_size=200))
def test_a_cursor_returns_its_position(position: bytes) -> None:
    for cursors in (PLAIN, SIGNED):
        assert cursors.decode(cursors.encode(position)) == position


@given(position=st.binary(max_size=50), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_signed_cursor_with_a_changed_bit_is_refused(position: bytes, place: int, bit: int) -> None:
    cursor = SIGNED.encode(position)
    data = bytearray(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(ValueError, match="cursor"):
        SIGNED.decode(urlsafe_b64encode(data).decode().rstrip("="))


@given(position=st.binary(min_size=1, max_size=50))
def test_a_cursor_of_another_key_or_version_is_refused(position: bytes) -> None:
    for foreign in (PLAIN.encode(position), Cursors(OTHER).encode(position), SIGNED.encode(position)[:-1], ""):
        with pytest.raises(ValueError):  # noqa: PT011 - also what base64 raises
            SIGNED.decode(foreign)
    following = bytes([VERSION[0] + 1])
    with pytest.raises(ValueError, match="version"):
        PLAIN.decode(urlsafe_b64encode(following + position).decode().rstrip("="))


async def test_lists_sign_their_cursors_where_there_is_a_key(settings: Settings, database: Database) -> None:
    keyed = settings.database.model_copy(update={"cursor_key": KEY})
    query: dict[str, Any] = {"sort": "id", "limit": 1, "total": False}
    async with database.sessions.begin() as session:
        await session.execute(insert(Thing), [{"label": label, "amount": Decimal(1)} for label in "abc"])
    async with open_database(keyed, "tests") as signing:
        first = await PAGES.page(signing.reads, cursor=None, **query)
        async with signing.sessions.begin() as session:  # a session takes what Reads has given
            second = await PAGES.page(session, cursor=first.next_cursor, **query)
        assert [row.label for row in first.rows + second.rows] == ["a", "b"]
        unsigned = (await PAGES.page(database.reads, cursor=None, **query)).next_cursor
        with pytest.raises(InvalidError, match="not a cursor of this list"):
            await PAGES.page(signing.reads, cursor=unsigned, **query)
        with pytest.raises(InvalidError, match="not a cursor of this list"):
            await PAGES.page(database.reads, cursor=first.next_cursor, **query)
