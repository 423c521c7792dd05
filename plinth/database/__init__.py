"""PostgreSQL: pools, the transaction, reads without one, keyset pages."""

from plinth.database.engine import Database, open_database
from plinth.database.keyset import Keyset, KeysetPage
from plinth.database.reads import Reads
from plinth.database.replica import must_see
from plinth.database.settings import DatabaseSettings
from plinth.database.statements import AnySelect, Change, Query
from plinth.database.transaction import Transaction
from plinth.database.types import Money

__all__ = [
    "AnySelect",
    "Change",
    "Database",
    "DatabaseSettings",
    "Keyset",
    "KeysetPage",
    "Money",
    "Query",
    "Reads",
    "Transaction",
    "must_see",
    "open_database",
]
