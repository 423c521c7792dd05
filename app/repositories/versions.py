"""A change may be meant for some versions of a row alone. It looks for them in its WHERE: of two, one finds its own."""

from collections.abc import Collection
from typing import Any, TypeAlias

from sqlalchemy import ARRAY, ColumnElement, Integer, Table, any_, bindparam

Versions: TypeAlias = Collection[int] | None
"""None is any."""


def only(table: Table, any_version: bool) -> list[ColumnElement[bool]]:
    """The conditions that `of_versions` has the values for."""
    conditions = [table.c.id == bindparam("row_id")]
    if not any_version:
        conditions.append(table.c.version == any_(bindparam("row_versions", type_=ARRAY(Integer))))
    return conditions


def of_versions(id: int, versions: Versions) -> dict[str, Any]:
    return {"row_id": id} if versions is None else {"row_id": id, "row_versions": [*versions]}
