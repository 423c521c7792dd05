"""`sorts_without_index` names each sort order that no index serves, whatever the list's query and the index are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import asyncpg
import pytest
from sqlalchemy import BigInteger, ForeignKey, Index, MetaData, UniqueConstraint, select, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateIndex, CreateTable

from plinth.database import Keyset
from plinth.testing.indexes import sorts_without_index

# What a table with `id` and `value` may have, and whether its rows come sorted by (value, id) from that.
PARTS: dict[str, tuple[Callable[[], Any], bool]] = {
    "nothing": (lambda: None, False),
    "both columns": (lambda: Index("i", "value", "id"), True),
    "both, and one more": (lambda: Index("i", "value", "id", "parent_id"), True),
    "both, downwards": (lambda: Index("i", text("value DESC"), text("id DESC")), True),
    "both, in two directions": (lambda: Index("i", text("value DESC"), "id"), False),
    "both, the other way round": (lambda: Index("i", "id", "value"), False),
    "another column first": (lambda: Index("i", "parent_id", "value", "id"), False),
    "the column alone": (lambda: Index("i", "value"), False),
    "a unique index": (lambda: Index("i", "value", unique=True), True),
    "a unique constraint": (lambda: UniqueConstraint("value"), True),
    "a unique constraint of two": (lambda: UniqueConstraint("value", "parent_id"), False),
    "a unique index of some rows": (
        lambda: Index("i", "value", unique=True, postgresql_where=text("value > 0")),
        False,
    ),
    "some rows": (lambda: Index("i", "value", "id", postgresql_where=text("value > 0")), False),
    "a hash": (lambda: Index("i", "value", postgresql_using="hash"), False),
    "an expression": (lambda: Index("i", text("(value + 1)"), "id"), False),
}


class Row(NamedTuple):
    id: int
    value: int


def models(part: Any) -> tuple[Any, Any]:
    class Base(DeclarativeBase):
        metadata = MetaData()

    class Parent(Base):
        __tablename__ = "index_parents"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)

    class Child(Base):
        __tablename__ = "index_children"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        value: Mapped[int]
        parent_id: Mapped[int] = mapped_column(ForeignKey(Parent.id))
        __table_args__ = () if part is None else (part,)

    return Parent, Child


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "joined"])
@pytest.mark.parametrize("name", PARTS)
async def test_a_sort_is_served_or_named(onlooker: asyncpg.Connection, name: str, joined: bool) -> None:
    part, served = PARTS[name]
    parent, child = models(part())
    columns = select(child.id, child.value)
    statement = columns.join(parent, parent.id == child.parent_id) if joined else columns
    keyset = Keyset("children", Row, statement, sorts={"id": child.id, "value": child.value}, filters={})
    dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
    changes = onlooker.transaction()
    await changes.start()
    try:
        for table in (parent.__table__, child.__table__):
            await onlooker.execute(str(CreateTable(table).compile(dialect=dialect)))
            for index in table.indexes:
                await onlooker.execute(str(CreateIndex(index).compile(dialect=dialect)))
        missing = await sorts_without_index(onlooker, [keyset])
    finally:
        await changes.rollback()
    sentence = (
        "No index serves the list of children by value: add Index(None, 'value', 'id') to Child, "
        "and write the migration."
    )
    assert missing == ([] if served else [sentence])
