"""Finds sort orders without an index: each page would sort the whole table."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from asyncpg import Connection
from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint

from plinth.database.keyset import Keyset

# With these off, a plan sorts only where no index has the order.
_PLANNER = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"

_SENTENCE = (
    "No index serves the list of {name} by {sort}: add Index(None, {column!r}, 'id') to {model}, "
    "and write the migration."
)


async def sorts_without_index(connection: Connection, keysets: Iterable[Keyset[Any]]) -> list[str]:
    """Return a sentence for each sort order that no index serves. The database has the tables, and no rows matter."""
    missing: dict[str, None] = {}
    for keyset in keysets:
        for sort, column, query in keyset.orders():
            # Sorting the rows of each value by id is cheap only where there is one of each.
            incremental = "on" if _is_unique(column) else "off"
            sql, arguments = query.bind({"limit": 1})
            async with connection.transaction():
                await connection.execute(f"{_PLANNER}; SET LOCAL enable_incremental_sort = {incremental}")
                plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *arguments))
            sorting = {"Sort"} if incremental == "on" else {"Sort", "Incremental Sort"}
            if sorting & {*_nodes(plan[0]["Plan"])}:
                sentence = _SENTENCE.format(
                    name=keyset.name, sort=sort.removeprefix("-"), model=column.class_.__name__, column=column.key
                )
                missing[sentence] = None
    return [*missing]


def _is_unique(column: Any) -> bool:
    table = column.class_.__table__
    keys: list[Any] = [each for each in table.constraints if isinstance(each, PrimaryKeyConstraint | UniqueConstraint)]
    keys += [each for each in table.indexes if each.unique and each.dialect_options["postgresql"]["where"] is None]
    return any([each.name for each in key.columns] == [column.name] for key in keys)


def _nodes(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["Node Type"]
    for each in plan.get("Plans", ()):
        yield from _nodes(each)
