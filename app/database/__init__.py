"""PostgreSQL: pools, the transaction, reads without one, keyset pages."""

from app.database.engine import Database, open_database
from app.database.keyset import Keyset, KeysetPage
from app.database.reads import Reads
from app.database.replica import must_see
from app.database.statements import AnySelect, Change, Query
from app.database.transaction import Transaction
from app.database.types import Money

__all__ = [
    "AnySelect",
    "Change",
    "Database",
    "Keyset",
    "KeysetPage",
    "Money",
    "Query",
    "Reads",
    "Transaction",
    "must_see",
    "open_database",
]
