"""PostgreSQL: pools, the transaction, reads without one, keyset pages, COPY."""

from app.database.bulk import copy_rows
from app.database.engine import Database, open_database
from app.database.keyset import Keyset, KeysetPage
from app.database.reads import AnySelect, Query, Reads
from app.database.replica import must_see
from app.database.transaction import after_commit, transaction
from app.database.types import Money

__all__ = [
    "AnySelect",
    "Database",
    "Keyset",
    "KeysetPage",
    "Money",
    "Query",
    "Reads",
    "after_commit",
    "copy_rows",
    "must_see",
    "open_database",
    "transaction",
]
